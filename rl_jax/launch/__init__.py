"""What a person runs and sees: command line, display, records, report."""
