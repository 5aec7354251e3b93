"""A Django app of the tests: dies at named moments of a turn, once, when a message asks for it.

A message that holds `[[die:MOMENT]]` ends its server process there with SIGKILL. The file in FAULTS_FILE says that it
happened, so that the next process goes on, and the test knows that the moment was really hit.
"""
