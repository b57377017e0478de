"""The command line: run, plan, launch, top, doctor."""
