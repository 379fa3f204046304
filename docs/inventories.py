"""Names of other projects that docstrings speak of, and where each is documented; written as Sphinx inventories.

Kept by hand, since a build fetches nothing: a name that is missing here is left without a link.
"""

import zlib
from pathlib import Path

__all__ = ["ALIASES", "write"]

SKLEARN = "modules/generated/{0}.html"
PROJECTS = {
    "python": (
        "https://docs.python.org/3/",
        {
            "pathlib.Path": "library/pathlib.html#{0}",
            **{name: "library/functions.html#{0}" for name in ("float", "int", "callable")},
            **{name: "library/stdtypes.html#{0}" for name in ("list", "tuple", "str", "dict")},
            **{name: "library/constants.html#{0}" for name in ("None", "True", "False")},
            "bltin-boolean-values": "library/stdtypes.html#boolean-type-bool",
            **{name: "glossary.html#term-{0}" for name in ("iterable", "sequence", "generator")},
        },
    ),
    "numpy": (
        "https://numpy.org/doc/stable/",
        {
            "numpy.ndarray": "reference/generated/{0}.html#{0}",
            "numpy.nan": "reference/constants.html#{0}",
            "numpy.inf": "reference/constants.html#{0}",
            "array_like": "glossary.html#term-{0}",
            "arrays.scalars": "reference/arrays.scalars.html",
            "numpy.random.Generator": "reference/random/generator.html#{0}",
            "numpy.random.RandomState": "reference/random/legacy.html#{0}",
        },
    ),
    "pandas": (
        "https://pandas.pydata.org/docs/",
        {name: "reference/api/{0}.html#{0}" for name in ("pandas.DataFrame", "pandas.Series", "pandas.Categorical")},
    ),
    "scipy": ("https://docs.scipy.org/doc/scipy/", {"scipy.sparse.csr_matrix": "reference/generated/{0}.html#{0}"}),
    "sklearn": (
        "https://scikit-learn.org/stable/",
        {
            name: SKLEARN
            for name in (
                "sklearn.base.BaseEstimator",
                "sklearn.base.TransformerMixin",
                "sklearn.base.clone",
                "sklearn.model_selection.GridSearchCV",
                "sklearn.pipeline.Pipeline",
                "sklearn.utils.estimator_checks.check_estimator",
            )
        },
    ),
    "torch": (
        "https://docs.pytorch.org/docs/stable/",
        {
            "torch.Tensor": "tensors.html#{0}",
            "torch.Generator": "generated/{0}.html#{0}",
            "torch.nn.Module": "generated/{0}.html#{0}",
            "torch.device": "tensor_attributes.html#{0}",
            "torch.dtype": "tensor_attributes.html#{0}",
        },
    ),
    "anndata": ("https://anndata.readthedocs.io/en/stable/", {"anndata.AnnData": "generated/{0}.html#{0}"}),
    "matplotlib": (
        "https://matplotlib.org/stable/",
        {"matplotlib.axes.Axes": "api/axes_api.html#{0}", "matplotlib.figure.Figure": "api/figure_api.html#{0}"},
    ),
}
# What is no class, by its role.
ROLES = {
    "std:term": ("iterable", "sequence", "generator", "array_like"),
    "std:label": ("bltin-boolean-values", "arrays.scalars"),
    "py:data": ("None", "True", "False", "numpy.nan", "numpy.inf"),
    "py:function": ("callable", "sklearn.base.clone", "sklearn.utils.estimator_checks.check_estimator"),
}
# Words of the docstrings, by what they stand for.
ALIASES = {
    "AnnData": "anndata.AnnData",
    "DataFrame": "pandas.DataFrame",
    "Series": "pandas.Series",
    "Categorical": "pandas.Categorical",
    "ndarray": "numpy.ndarray",
    "Tensor": "torch.Tensor",
    "Pipeline": "sklearn.pipeline.Pipeline",
    "Path": "pathlib.Path",
    "Axes": "matplotlib.axes.Axes",
    "Figure": "matplotlib.figure.Figure",
    **{
        name: f"tabdiff.{name}"
        for name in ("DiffusionGenerator", "TrainingOptions", "SamplingOptions", "ImageCodec", "LatentImageCodec")
    },
    **{name: f"tabdiff.diffusion.{name}" for name in ("Denoiser", "DenoiserLike", "Schedule", "Sampler", "Loss")},
}


def write(folder: Path) -> dict[str, tuple[str, str]]:
    """Write an inventory for each project; return what `intersphinx_mapping` is to be."""
    folder.mkdir(parents=True, exist_ok=True)
    mapping = {}
    for project, (address, names) in PROJECTS.items():
        lines = []
        for name, page in sorted(names.items()):
            role = next((role for role, some in ROLES.items() if name in some), "py:class")
            lines.append(f"{name} {role} 1 {page.format(name)} -\n")
        head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
        head += "# The remainder of this file is compressed using zlib.\n"
        path = folder / f"{project}.inv"
        path.write_bytes(head.encode() + zlib.compress("".join(lines).encode()))
        mapping[project] = (address, str(path))
    return mapping
