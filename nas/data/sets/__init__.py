"""One file per data set. The file's name is the data set's name; it offers `load(spec) -> Dataset`."""
