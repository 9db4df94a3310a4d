"""One module per data set, named after it.

Each module has `load(spec) -> Dataset`. One with a test split also has `load_test(spec) -> Split | None`, which returns
None if the files do not include it. One whose pictures have to be made before they can be loaded has
`prepare(spec, guard, progress)`, whose arguments are those of `nas.data.dataset.load`.

Other packages add data sets through the entry points `framebudget.data_sets` (see `space.extensions`).
"""
