"""What people are told about a job: one message for each event, as subject, plain text, HTML and JSON. No IO."""
