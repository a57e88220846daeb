"""The campaign: what the world does to the programs, by the thousand (:mod:`tests.campaign.__main__`)."""
