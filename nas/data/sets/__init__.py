"""One file per data set. The file's name is the data set's name; it offers `load(spec) -> Dataset`, and
where there is a test split `load_test(spec) -> Split | None`, None where that is not among the files. Where pictures
have to be made before they can be loaded, `prepare(spec, guard, told)` does so, as `nas.data.dataset.load` says.

Other packages bring data sets through the entry points `framebudget.data_sets` (see `space.extensions`).
"""
