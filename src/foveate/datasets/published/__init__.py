"""Published data sets, read as they were published."""
