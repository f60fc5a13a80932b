"""The verbs on the command line. Bad input gets one sentence and exit code 2."""
