"""From folders to records: what the verbs of the command line do."""
