"""What several commands need: their options (`common`), trained networks and their data (`trained_on`), certificates
(`certified`), where results go (`output`), what is said when an error ends a command (`ending`), and the process that
`nas train` trains in (`training_process`).
"""
