"""One file per data set. The file's name is the data set's name; it offers `load(spec) -> Dataset`, and
where there is a test split `load_test(spec) -> Split | None`, None where that is not among the files.

Other packages bring data sets through the entry points `framebudget.data_sets` (see `space.extensions`).
"""
