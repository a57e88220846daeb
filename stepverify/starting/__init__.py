"""Write a first configuration from rows, a model and the machine: ``stepverify init``."""
