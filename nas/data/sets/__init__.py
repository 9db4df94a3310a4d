"""One file per data set. The file's name is the data set's name; it offers `load(spec) -> Dataset`.

Other packages bring data sets through the entry points `framebudget.data_sets` (see `space.extensions`).
"""
