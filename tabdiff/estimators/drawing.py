"""What a fitted generator draws: rows, missing values, and images of which something is known."""

from __future__ import annotations

import os
from typing import Any

import pandas as pd

from tabdiff.codecs.conditions.vector import as_array
from tabdiff.codecs.inputs import read_features
from tabdiff.estimators.cells import CellMixin
from tabdiff.generation.cells import impute_genes
from tabdiff.generation.imputation import check_masks, impute
from tabdiff.generation.inverse_problems import impute_images, restore, super_resolve
from tabdiff.generation.options import SamplingOptions
from tabdiff.generation.sampling import SamplePlan
from tabdiff.generation.shards import sample_to
from tabdiff.io.frames import ForeignFrame
from tabdiff.utils.memory import native

__all__ = ["DrawingMixin"]


class DrawingMixin(CellMixin):
    """Methods of `DiffusionGenerator` that draw."""

    def sample(
        self,
        n_samples: int | None = None,
        condition: Any = None,
        *,
        guidance_scale: float = 1.0,
        guidance: Any = "classifier_free",
        method: Any = "auto",
        steps: str | int = "auto",
        obs: pd.DataFrame | None = None,
        like: Any = None,
        library_size: Any = None,
        random_state: Any = None,
        batch_size: str | int = "auto",
        n_jobs: int | None = None,
        return_condition: bool = False,
    ) -> Any:
        """Draw new rows.

        Parameters
        ----------
        n_samples : int, optional
            Number of rows; by default as many as the condition has, or one.
        condition : optional
            - None draws conditions jointly from those seen in `fit`.
            - A label, its text (such as ``"(0, 30]"`` for an interval), or a number applies to every row, where the
              model has a single attribute.
            - A dict from attribute names to labels, numbers or arrays; attributes that are left out are drawn from
              training rows that match. ``{"cell_type": {"B": 300, "T": 200}}`` gives exact counts.
            - A dict may name columns that were not declared in `fit` too: they are held at these labels, numbers or
              arrays, and the rest of the row is drawn given them. ``{"sex": {"F": 300, "M": 200}}`` gives exact counts.
              Declared conditions must then be given too.
            - An array, Series or DataFrame goes row by row. A vector (d,), tokens (m, d) or a text apply to every row,
              and arrays or lists of them go row by row.
            - "unconditional" uses the null token; condition columns then come back missing.
        guidance_scale : float, default=1.0
            s in ``D_null + s (D_condition - D_null)`` (Ho and Salimans, 2022): 1 is no guidance, 0 unconditional,
            larger values exaggerate the condition. The other form of the literature, ``(1 + w) eps_condition - w
            eps_null``, is ``s = 1 + w``. Any scale but 1 and 0 doubles the cost.
        guidance : str or callable, default="classifier_free"
            "classifier_free"; "cfg++", for scales from 0 to 1, of which 1 is full guidance, with the methods "ddim",
            "ddpm" and "predictor_corrector"; or a callable ``guidance(denoiser, scale)`` that returns a denoiser, such
            as ``lambda d, s: AutoGuidance(d, weak, s)``. See `tabdiff.diffusion.guidance`. Where rows are guided they
            follow another distribution than the training rows, so that autoguidance and refinement are left out.
        method : str or Sampler, default="auto"
            "ddpm", "ddim", "dpmpp_2m" or another name or object of `tabdiff.diffusion`; "auto" is "dpmpp_2m", and
            "ddim" for "cfg++". The rows of a seed do not depend on `batch_size` with any of them but "rk45", whose
            steps suit the batch.
        steps : "auto" or int, default="auto"
            Number of steps; "auto" is 50, 16 or 25 for rows that are refined, and 1000 for "ddpm".
        obs : DataFrame, optional
            For cells: a row for each, from which conditions are taken and which their ``obs`` starts with.
        like : AnnData or MuData, optional
            For cells: those whose composition and total counts are copied, row by row; with another `n_samples`, of
            cells drawn from it. Totals go, among cells of one condition, to those that the model makes as deep. With a
            dict as `condition` beside it the cells are like these but for what that names: ``like=controls,
            condition={"condition": "stim"}``; see `predict_perturbation`.
        library_size : float, array-like of shape (n_samples,), dict of them or "match", optional
            For counts: the total of each cell. Reads are taken at random from what the model draws, or added from the
            rates that agree with it, as sequencing the same cell less or more would. "match" draws totals of training
            cells of the same class. Of a MuData a dict says which modality's, ``{"rna": 5000}``. By default the model
            draws them too.
        random_state : int, RandomState or None, default=None
            An integer repeats exactly. None goes on with a stream that `fit` seeded, so that two calls differ.
        batch_size : "auto" or int, default="auto"
            Rows evaluated at once.
        n_jobs : int or None, default=None
            Processes that draw, each on one thread: -1 is one for each core, and None is this process alone, on as many
            threads as PyTorch has. The rows are the same with any number. A GPU draws alone.
        return_condition : bool, default=False
            Whether to return the conditions too.

        Returns
        -------
        ndarray, DataFrame, AnnData, MuData, frame of another library or list of PIL images
            New rows in the container of the fit; images of a folder come as an array (n, h, w) or (n, h, w, c).
        condition : ndarray or DataFrame
            With `return_condition`: the condition of each row, an array where `fit` was given ``y`` or an unnamed
            array with a single attribute, None for a model without condition.

        Raises
        ------
        ValueError
            For an unknown label (the nearest is named), a condition that the model does not have, or a number of rows
            that is not positive or does not match the condition.

        Warns
        -----
        UserWarning
            For a continuous condition, or a held column, outside the range of the fit; and before a draw that will take
            more than a minute. With ``verbose=1`` a progress bar shows the rows that are kept.
        """
        model = self._drawing_model()
        options = SamplingOptions(guidance_scale, guidance, method, steps, batch_size, random_state, n_jobs)
        which = dict(obs=obs, like=like, library_size=library_size)
        plan = SamplePlan(
            model, n_samples, condition, options, **which, seed=model.seed(random_state), verbose=self.verbose
        )
        rows, labels = plan.rows()
        if not return_condition:
            return rows
        if labels is not None and model.source in ("y", "given") and labels.shape[1] == 1:
            vectors = model.conditions is not None and model.conditions.vector_names
            return rows, as_array(labels.iloc[:, 0]) if vectors else labels.iloc[:, 0].to_numpy()
        return rows, labels if labels is None or model.origin is None else model.origin.write(labels)

    def sample_to(
        self,
        path: str | os.PathLike,
        n_samples: int | None = None,
        condition: Any = None,
        *,
        obs: pd.DataFrame | None = None,
        like: Any = None,
        library_size: Any = None,
        shard_size: str | int = "auto",
        shard: tuple[int, int] | None = None,
        format: str = "auto",
        n_jobs: int | None = None,
        **options: Any,
    ) -> None:
        r"""Draw rows into files, shard by shard, by as many processes as wanted: for more than fit into memory.

        A shard is a function of the model, the request, the seed and its number. So a run that was killed goes on with
        the same call: shards that are whole are kept. No number of processes changes a row, and a cluster can draw some
        shards on each of its machines.

        Parameters
        ----------
        path : path-like
            A folder, made if need be, for a file for each shard and ``_tabdiff.json``, which says what they are of; of
            images, for all of them, with a subfolder for each class. Or one file: ``.parquet``, ``.csv`` or ``.csv.gz``
            for a table, an array or sequences, ``.npy`` for an array, ``.fasta`` for sequences of letters, ``.h5ad`` or
            ``.zarr`` for cells. It appears when it is whole; until then the shards lie in a hidden folder beside it.
        n_samples, condition, obs, like, library_size
            As in `sample`. A condition, or `library_size`, with a value for each row is in memory as a whole.
        shard_size : "auto" or int, default="auto"
            Rows of a shard, which are in memory at once. The rows depend on it, and refinement and balancing hold
            within a shard. "auto" is that of the run that was begun, or else about four million values, 20,000 cells.
        shard : (int, int), optional
            ``(i, k)`` writes the i-th of k shards and no other, i from 1 to k, for arrays of jobs. Once all are there,
            a call without it puts those of one file together.
        format : str, default="auto"
            Of the files in a folder: "parquet" (the usual one), "csv" or "csv.gz", also "npy" for an array and "fasta"
            for sequences; "h5ad" (the usual one) or "zarr" for cells; "png" for images.
        n_jobs : int, optional
            Processes that draw, of one thread each, by joblib: None is 1, or what ``joblib.parallel_config`` says,
            with which they may run on a Dask cluster too; -1 is one for each core. Each holds a shard in memory.
        **options
            `guidance_scale`, `guidance`, `method`, `steps`, `batch_size` and `random_state` of `sample`. With an
            integer as `random_state` a single shard holds what `sample` draws; None goes on with the seed of the run
            that was begun at `path`, if there is one.

        Raises
        ------
        TypeError
            For an unknown keyword.
        ValueError
            For another ending of `path` or format, a folder with shards of another model or request (what differs is
            named), and as in `sample`.
        FileExistsError
            If `path` holds other files, or, without `random_state`, a run that is over.
        FileNotFoundError
            If the folder above `path` does not exist.
        OSError
            If a file cannot be written, on a full disk, say. Its shard is named; shards that are whole stay.

        Examples
        --------
        >>> import os, tempfile
        >>> import numpy as np, pandas as pd
        >>> from tabdiff import DiffusionGenerator
        >>> frame = pd.DataFrame({"x": np.random.default_rng(0).normal(size=60)})
        >>> gen = DiffusionGenerator(max_steps=5, random_state=0).fit(frame)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     gen.sample_to(f"{folder}/lake", 50, shard_size=20, random_state=0)
        ...     print(*sorted(os.listdir(f"{folder}/lake")), sep="\n")
        ...     pd.read_parquet(f"{folder}/lake").shape
        _tabdiff.json
        part-00001-of-00003.parquet
        part-00002-of-00003.parquet
        part-00003-of-00003.parquet
        (50, 1)
        """
        model = self._drawing_model()
        how = SamplingOptions.of(**options)
        which = dict(condition=condition, obs=obs, like=like, library_size=library_size)
        given = how.random_state is not None
        sample_to(
            model,
            path,
            n_samples,
            which,
            how,
            seed=model.seed(how.random_state) if given else None,
            new_seed=0 if given else model.seed(),
            shard_size=shard_size,
            shard=shard,
            format=format,
            n_jobs=n_jobs,
            verbose=self.verbose,
        )

    # --------------------------------------------------------------- impute

    def impute(
        self,
        X: Any,
        *,
        condition: Any = None,
        mask: Any = None,
        n_draws: int = 1,
        strategy: str = "auto",
        method: Any = "auto",
        steps: str | int = "auto",
        random_state: Any = None,
        batch_size: str | int = "auto",
        n_jobs: int | None = None,
    ) -> Any:
        """Fill what is missing: values of a table, given the cells that are there, pixels of images, genes of cells.

        The model may have been fitted on the same table, missing values and all. They are taken to be missing at
        random: what is missing depends on the cells that are there only (Rubin, 1976). What was never seen at fit stays
        as it is: a level that its column did not have says nothing about the missing values beside it, and a number
        outside its range counts as the end of that. A missing value in a column that had none is filled too.

        Cells of another panel get the genes of the fit that they lack, such as those that a targeted panel does not
        measure: counts drawn given the genes that are there, the cell's condition and its depth. So do modalities of a
        MuData: proteins of cells of which RNA alone was measured.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features), AnnData or MuData
            Rows with the columns of the fit, in which values of any kind may be missing; or cells with some of its
            genes, matched by name, in any order. It is never changed.
        condition : optional
            Condition of the rows, in the forms of `sample` that go row by row or give one value. By default that of
            X's own columns, a missing one being unknown, or else none.
        mask : array-like of bool, optional
            For images, and needed there: True where a pixel is missing. Of shape (h, w) for all, (n, h, w), or that of
            the images. They are drawn by RePaint (Lugmayr et al., 2022); all other pixels stay exactly as they are.
            ``method=RePaint(n_resamples=10, jump_length=10)`` of `tabdiff.diffusion` has that paper's settings.
        n_draws : int, default=1
            Number of completed tables. Several, drawn, show how uncertain the missing values are: multiple imputation.
        strategy : {"auto", "mean", "draw"}, default="auto"
            For tables; images and cells are drawn. "mean" is the best guess: the mean of numbers, rounded where the
            column holds integers or times, and the likeliest level of categories, each over draws. "draw" is a draw
            from what the model believes, which keeps the spread of the columns and how they depend on each other.
            "auto" is "mean" for one table, "draw" for several.
        method : str or Sampler, default="auto"
            As in `sample`.
        steps : "auto" or int, default="auto"
            Number of steps of each draw; "auto" is 25 for a draw and 5 for each of the 30 that a mean is taken of.
        random_state : int, RandomState or None, default=None
            An integer repeats exactly. None goes on with a stream that `fit` seeded.
        batch_size : "auto" or int, default="auto"
            Rows evaluated at once.
        n_jobs : int or None, default=None
            As in `sample`, for tables.

        Returns
        -------
        ndarray, DataFrame, AnnData or MuData, or list of them
            X with its missing values filled and everything else as it is, index and columns too; with ``n_draws > 1`` a
            list. A column gets the dtype of the fit if that holds its values. Missing values stay in condition columns,
            which the model does not draw, and in columns that had no value at fit. Cells come with all genes of the
            fit in its order, in X; ``var["imputed"]`` says which were drawn.

        Raises
        ------
        ValueError
            For columns that differ from the fit's, a condition that was not there, infinities, parameters out of range,
            a model that was fitted with ``observed_masks=0``, or cells with genes that the fit did not have.
        TypeError
            For sequences, for tables with a callable denoiser or a mask.

        Warns
        -----
        UserWarning
            For levels that were not there at fit.

        Examples
        --------
        >>> from tabdiff import DiffusionGenerator
        >>> from tabdiff.datasets import load_penguins
        >>> penguins = load_penguins()
        >>> gen = DiffusionGenerator(max_steps=20, random_state=0).fit(penguins)
        >>> int(penguins.isna().sum().sum()), int(gen.impute(penguins).isna().sum().sum())
        (19, 0)
        >>> [len(table) for table in gen.impute(penguins, n_draws=3)]
        [344, 344, 344]
        """
        model = self._drawing_model()
        how = SamplingOptions(
            method=method, steps=steps, batch_size=batch_size, random_state=random_state, n_jobs=n_jobs
        )
        settings: dict[str, Any] = dict(n_draws=n_draws, strategy=strategy, options=how)
        settings["seed"] = model.seed(random_state)
        if model.container == "images":
            return impute_images(model, X, mask, condition=condition, **settings)
        if mask is not None:
            raise TypeError("mask is for images; what is missing in a table is known without one.")
        if model.container in ("cells", "multimodal"):
            features, own = read_features(self, X, model.container, model.condition_names, model.source)
            which = {"n_draws": n_draws, "strategy": strategy, "seed": settings["seed"]}
            return impute_genes(model, features, own, condition=condition, **which)
        check_masks(model, "impute")
        table, origin = (native(X), None) if isinstance(X, pd.DataFrame) else ForeignFrame.read(X)
        features, own = read_features(self, table, model.container, model.condition_names, model.source)
        table = table if isinstance(table, pd.DataFrame) else features
        filled = impute(model, features, own, table, condition=condition, **settings)
        if origin is None:
            return filled
        return [origin.write(f) for f in filled] if isinstance(filled, list) else origin.write(filled)

    # ----------------------------------------------------- inverse problems

    def super_resolve(
        self,
        images: Any,
        *,
        operator: str = "average",
        condition: Any = None,
        guidance_scale: float = 1.0,
        steps: int = 50,
        random_state: Any = None,
    ) -> Any:
        """Draw images that are the given ones when shrunk, by posterior guidance (Song et al., 2023).

        Parameters
        ----------
        images : images
            As the model's in channels, dtype and range; their sides are those of the model's images over one whole
            number.
        operator : {"average", "bicubic", "gaussian", "strided"}, default="average"
            How the given images were made of large ones: by the mean of blocks of pixels, by bicubic interpolation with
            antialiasing, by a Gaussian blur of which every other pixel (every third, ...) was kept, or by keeping those
            alone. For any other one see `restore`.
        condition, guidance_scale
            As in `sample`; by default none.
        steps : int, default=50
            Evaluations of the network, each with its gradient.
        random_state : int, RandomState or None, default=None
            As in `sample`.

        Returns
        -------
        array or list of PIL images
            As many images, in the container of the fit.

        Raises
        ------
        TypeError
            If the model is not one of images, or one of latents.
        ValueError
            If the sides do not fit, or the operator is unknown.

        Examples
        --------
        >>> import numpy as np
        >>> from tabdiff import DiffusionGenerator
        >>> images = np.random.default_rng(0).random((20, 8, 8))
        >>> gen = DiffusionGenerator(max_steps=2, hidden_size=8, random_state=0).fit(images)
        >>> gen.super_resolve(images[:3, ::2, ::2], steps=2).shape
        (3, 8, 8)
        """
        model = self._drawing_model()
        settings: dict[str, Any] = dict(condition=condition, guidance_scale=guidance_scale, steps=steps)
        return super_resolve(model, images, operator=operator, **settings, seed=model.seed(random_state))

    def restore(
        self,
        measurements: Any,
        operator: Any,
        *,
        noise_std: float = 0.0,
        condition: Any = None,
        guidance_scale: float = 1.0,
        steps: int = 50,
        random_state: Any = None,
    ) -> Any:
        """Draw images given linear measurements of them, ``y = operator @ image + noise`` (Song et al., 2023).

        Parameters
        ----------
        measurements : array-like of shape (n, m)
            y, in the units of the images. With a callable any shape (n, *).
        operator : array-like of shape (m, c * h * w), or callable
            Acts on images whose values lie channel by channel, and in a channel row by row. A callable maps tensors of
            images (n, c, h, w) to measurements (n, *), linearly; see `tabdiff.diffusion.operators`.
        noise_std : float, default=0.0
            Standard deviation of the noise, in the units of the images. With 0, measurements of the drawn images are
            `measurements` but for what clipping to the range of the images, and rounding to bytes, takes away.
        condition, guidance_scale, steps, random_state
            As in `super_resolve`.

        Returns
        -------
        array or list of PIL images
            n images in the container of the fit.

        Raises
        ------
        TypeError
            If the model is not one of images, or one of latents.
        ValueError
            For shapes that do not fit the images, or a callable that is not linear.
        """
        model = self._drawing_model()
        settings: dict[str, Any] = dict(condition=condition, guidance_scale=guidance_scale, steps=steps)
        seed = model.seed(random_state)
        return restore(model, measurements, operator, noise_std=noise_std, **settings, seed=seed)
