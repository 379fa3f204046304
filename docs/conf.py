"""How the site is built: `sphinx-build -W --keep-going docs docs/_build/html`; nothing is fetched from the network."""

import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "benchmarks")]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import api_pages  # noqa: E402
import inventories  # noqa: E402
import plots  # noqa: E402
from sphinx_gallery.sorting import FileNameSortKey  # noqa: E402

import tabdiff  # noqa: E402

project = "tabdiff"
author = "tabdiff contributors"
copyright = "tabdiff contributors"
release = tabdiff.__version__
version = ".".join(release.split(".")[:2])

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = [
    "_build",
    "tutorials",
    "reference/backreferences",
    "**/GALLERY_HEADER*",
    "sg_execution_times.rst",
    "gallery/sg_execution_times.rst",
]
templates_path = ["_templates"]
default_role = "py:obj"
suppress_warnings = [
    "config.cache",  # the gallery's settings hold functions, which the cache cannot keep
    "ref.python",  # attributes of one name in several classes, such as schema_
]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

autosummary_generate = True
autosummary_imported_members = True
autodoc_default_options = {"member-order": "bysource"}
autodoc_typehints = "none"  # types stand in the docstrings, with shapes and ranges
numpydoc_show_class_members = False
numpydoc_xref_param_type = True
numpydoc_xref_aliases = inventories.ALIASES
numpydoc_xref_ignore = "all"  # a type is linked where it is known, and left as it is elsewhere
intersphinx_mapping = inventories.write(HERE / "_build" / "inventories")

sphinx_gallery_conf = {
    "examples_dirs": "tutorials",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/\d\d_",
    "within_subsection_order": FileNameSortKey,
    "backreferences_dir": "reference/backreferences",
    "doc_module": ("tabdiff",),
    "reference_url": {"tabdiff": None},
    "abort_on_example_error": False,
    "remove_config_comments": True,
    "ignore_repr_types": r"matplotlib\.",  # what the last line of a plot returns is of no interest
    "show_memory": False,
    "show_signature": False,
    "parallel": 2,
    "download_all_examples": False,
    "plot_gallery": os.environ.get("TABDIFF_DOCS_TUTORIALS", "1") != "0",
}

html_theme = "pydata_sphinx_theme"
html_title = f"tabdiff {release}"
html_static_path = ["_static"]
html_css_files = ["tabdiff.css"]
html_show_sourcelink = False
html_copy_source = False
ALONE = ("index", "install", "changelog", "contributing", "security", "peers", "release-0.1.0")
html_sidebars = {page: [] for page in ALONE}
html_theme_options = {
    "logo": {"text": "tabdiff"},
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "secondary_sidebar_items": ["page-toc"],
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


LITERAL = re.compile(r"(`[^`]*`)")


def escape(app, what, name, obj, options, lines):
    """Shapes such as (n, n_latent_) and (B, *) are no links and no emphasis."""
    for i, line in enumerate(lines):
        if line.lstrip().startswith((">>>", "...")):
            continue
        parts = LITERAL.split(line)
        parts[::2] = [re.sub(r", \*\)", r", \\*)", re.sub(r"(\w)_(?=[,) ]|$)", r"\1\_", part)) for part in parts[::2]]
        lines[i] = "".join(parts)


def leave_out(app, what, name, obj, skip, options):
    """Leave out scikit-learn's requests of metadata, whose docstrings refer to its own manual."""
    return True if re.fullmatch(r"set_\w+_request", name) else None


def setup(app):
    app.connect("autodoc-skip-member", leave_out)
    app.connect("autodoc-process-docstring", escape, priority=900)  # after numpydoc


# Made here, since autosummary looks for pages before any event of Sphinx.
api_pages.write(HERE / "reference")
plots.draw(HERE / "benchmarks" / "plots")
