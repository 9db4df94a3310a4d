"""Code that several commands share: options (`common`), the data that weights were trained on (`trained_on`),
certificates (`certified`), output folders (`output`), the message when a command ends early (`ending`), and the process
that `nas train` trains in (`training_process`).
"""
