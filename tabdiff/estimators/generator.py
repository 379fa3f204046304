"""The one estimator: fit on a container, sample the same container."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from tabdiff.codecs.conditions.conditions import Conditions, condition_frame
from tabdiff.codecs.conditions.vector import as_array
from tabdiff.codecs.inputs import read_features, read_fit_inputs
from tabdiff.diffusion import Denoiser
from tabdiff.estimators.parameters import check_parameters
from tabdiff.generation.cells import latent
from tabdiff.generation.imputation import check_masks, impute
from tabdiff.generation.inverse_problems import impute_images, restore, super_resolve
from tabdiff.generation.likelihood import bits_of_rows, condition_codes, log_likelihood
from tabdiff.generation.sampling import SamplePlan
from tabdiff.io import model_files
from tabdiff.io.anndata_writer import check_path, write_cells
from tabdiff.io.frames import ForeignFrame
from tabdiff.model import persistence
from tabdiff.model.fit import fit_model
from tabdiff.model.fitted import FittedModel
from tabdiff.model.networks import NetworkSettings
from tabdiff.model.old_names import refuse_old_names, what_replaces
from tabdiff.model.refinement.refinement import Refinement
from tabdiff.training import TrainingOptions
from tabdiff.utils.array_likes import native, read_array
from tabdiff.utils.device import resolve_device

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["DiffusionGenerator"]


class DiffusionGenerator(DensityMixin, BaseEstimator):
    """Diffusion model of a table, an array, cells, images or sequences: learns from rows, draws new ones like them.

    The container that goes in comes out: a DataFrame gives a DataFrame with the same columns, dtypes, categories and
    missingness; an AnnData gives an AnnData with the same genes, integer counts where it was trained on counts, and
    labels in ``obs``; an array gives an array; a polars frame or a pyarrow table gives one of the same schema; images
    come out in the layout, dtype and range that went in. Labels go in and labels come out.

    Parameters
    ----------
    denoiser : "auto", "mlp", "dit", "unet", object with settings or callable, default="auto"
        The network: "mlp", a residual MLP; "dit", a diffusion transformer (Peebles and Xie, 2023) with a token for each
        column, latent dimension, patch of an image or position of a sequence; or "unet", for images, of a size that
        suits them (`tabdiff.nn.unet.UNET_PRESETS`): on a GPU that of Ho et al. (2020) for 32 × 32 pixels, on a CPU at
        most 32 channels at the first level. "auto" is "unet" for images and else "mlp". On a CPU a step of the
        transformer takes four to thirty times as long as the MLP's, and within the same time the MLP's tables, cells
        and digits are better, though step by step the transformer learns more (see benchmarks/README.md). Choose "dit"
        for long fits, where attention is cheap, and for conditions of several vectors a row, to which it attends one by
        one where the MLP sees their mean. A callable
        ``denoiser(n_inputs, n_outputs, condition_size)`` returns an ``nn.Module`` that is called as ``network(x, t,
        c)`` with x of shape (B, n_inputs), t of shape (B,) in [0, 1], c of shape (B, condition_size) or None, and
        returns (B, n_outputs). An object (`tabdiff.MLP`, `tabdiff.DiT`, `tabdiff.UNet`) has the network's name and all
        of its settings; `hidden_size` to `conditioning` below are then left out.
    schedule : str or Schedule, default="cosine"
        Noise schedule: "cosine", "offset_cosine" (the published cosine with s = .008 in continuous time), "linear",
        "sigmoid", "vp", "sub_vp", "ve", "rectified_flow", "edm", or an object of `tabdiff.diffusion`.
    target : str, default="v"
        What the network predicts for numbers: "eps", "x0", "v", "flow", "score" or "edm".
    loss : str or Loss, default="simple"
        How errors are weighed over time: "simple", "elbo", "snr", "min_snr", "edm", "huber" or another name or object
        of `tabdiff.diffusion.losses`.
    n_timesteps : int, optional
        Number of steps of a discrete schedule, 1000 in the DDPM paper. None is continuous time.
    variance : {"fixed", "learned"}, default="fixed"
        Whether the network learns how wide each step of ``method="ddpm"`` is, by the hybrid loss (Nichol and Dhariwal,
        2021). It needs `n_timesteps`, and data of numbers alone: arrays, cells or images. A callable `denoiser` is then
        asked for two outputs a number, the variances last.
    hidden_size, n_blocks : "auto" or int, default="auto"
        Width and depth of the network; "auto" is 256 and 3 for the MLP, 512 and 4 for tables of 5,000 rows or more, and
        for the transformer 96 and 3, and 128 and 4. Of a U-Net the channels of its first level, and the residual blocks
        of each level.
    dropout : float, default=0.0
        Dropout inside the network, in [0, 1).
    time_embedding : {"sinusoidal", "learned", "table"}, default="sinusoidal"
        What the network is told of the time: sines of fixed frequencies, sines of ones that are learned, or a learned
        vector for each of `n_timesteps` times.
    conditioning : {"auto", "adaln", "addition", "concatenation", "cross_attention"}, default="auto"
        Where the condition enters: into the modulation of the blocks (AdaLN, or "film"); added to what the blocks work
        on; beside the noisy row, as inputs, tokens or channels; or as tokens that the transformer or the U-Net attends
        to. "auto" is "cross_attention" in these two for conditions of several vectors a row; else "adaln", in a U-Net
        as the time enters. A callable denoiser decides for itself.
    text_encoder : callable or dict, optional
        What turns conditions that are text into numbers: from a list of n texts to vectors (n, d), or to tokens, an
        array (n, m, d) or a list of n arrays (m, d). Then every condition of strings, categories excepted, is text, and
        `sample` takes texts that were never seen. A dict ``{name: callable}`` says which conditions are text.
    condition_dropout : float or dict, default=0.1
        Probability with which a row's condition is hidden in training, which teaches the unconditional model. A dict
        from names of conditions to probabilities hides each of these by itself, ``{"cell_type": 0.3, "dose": 0.3}``,
        which teaches the model given some of them too, as `MultiConditionGuidance` needs; the share of rows without any
        condition is then the product, and conditions that are not named are never hidden.
    observed_masks : "auto" or float, default="auto"
        Share of the training rows of which a random part is shown to the network without noise, which teaches it to
        draw some columns given others: `impute`, and columns in `sample` that were not declared as conditions. "auto"
        is 0.25 for a complete table, and as much more as there are missing cells, up to 0.75. 0 leaves both out and
        gives slightly better samples. It has no effect on AnnData, images or with a callable `denoiser`.
    autoguidance : "auto" or float, default="auto"
        Scale by which the numbers of a table or array are led away from what a small network makes of them that is
        trained beside the MLP for a twentieth of its time (autoguidance, Karras et al., 2024). Above 1 they follow the
        other columns more closely, and sampling takes a third longer; 1 leaves it out. "auto" tries 1 to 2 where there
        are 5,000 rows or more, and takes what trees can tell from real rows least (``autoguidance_``). It counts in
        `sample`, not in `impute` or likelihoods.
    refine : "auto" or bool, default="auto"
        Whether rows of a DataFrame, and sequences of up to 100 positions, are refined as they are drawn: the marginals
        of numbers are corrected, rows that trees can tell from training rows are rejected (Azadi et al., 2019), and so
        are rows of columns and pairs that come too often, so that sampling takes about three times as long. From 1,000
        rows at a time, drawn without a condition, they are chosen together, closer to the training rows' shares than a
        sample is. "auto" refines from 1,000 training rows on. See `tabdiff.model.refinement.refinement`.
    max_steps : "auto" or int, default="auto"
        Training steps; "auto" follows the number of rows, from 200 to 10,000; for images from 500 to 2,000 on a CPU,
        and from 2,000 to 50,000 on a GPU.
    max_time : float, optional
        Seconds of `fit` at most, about. Results then depend on the machine's speed.
    batch_size : "auto" or int, default="auto"
        Rows a training step; "auto" is 512, fewer where there are fewer rows, and 128 for images.
    learning_rate : "auto" or float, default="auto"
        Of the optimiser, after warm-up. "auto" is 1e-3; for a U-Net less the wider it is, 2e-4 at 128 channels.
    training : TrainingOptions, optional
        What is rarely changed: optimiser, warm-up and decay of the rate, averaging of the weights, clipping and
        accumulation of gradients, how times are drawn. None is ``TrainingOptions()``.
    early_stopping : bool, default=False
        Whether to hold out rows, stop when the loss on them no longer improves, and keep the weights that did best.
        They are averaged weights, evaluated every 50 steps at times and noises that stay the same.
    validation_fraction : float, default=0.1
        Share of the rows that is held out, in (0, 1); they still count for the distribution of each column.
    n_iter_no_change : int, default=10
        Evaluations in a row without an improvement after which training stops.
    categorical_features : "auto" or list, default="auto"
        Columns to treat as categories beside those whose dtype says so; "auto" adds numeric columns with at most ten
        distinct values.
    dependencies : bool, default=True
        Whether a column of a DataFrame that another column, or a class of the condition, determines in every training
        row is looked up on output, so that no row breaks the rule. Rules that few rows support are not taken. A
        category that a decision tree tells from several columns, wrong in one row of a thousand at most, is what the
        tree says (tables of 2,000 rows and of at most 256 columns are searched). Numbers that equal another column in
        one row of a hundred or more, other than by chance, are equal as often on output. ``schema_`` lists what was
        found.
    constraints : list of str, optional
        What holds in every generated row, between columns of a DataFrame that hold numbers or times: ``a <= b``,
        ``a < b``, ``total = a + b - c``. A name with spaces stands in backticks. The training rows must keep them.
    layer : str, optional
        For AnnData: where the expression is, a layer's name, "X" or "raw". By default counts are looked for in
        ``layers["counts"]``, ``X`` and ``raw``; where there are none, X is modelled as continuous expression, with a
        warning.
    augment : str or list of str, optional
        For images: "flip" mirrors a random half of the training images left to right, "crop" shifts them by up to an
        eighth of their sides.
    latent_diffusion : bool, default=False
        For images: diffusion in the latents of an autoencoder that is trained first (Rombach et al., 2022), a map of a
        quarter of the sides, or half for images under 16 pixels. Cheaper for large images; `schema_` says how well the
        autoencoder gives images back, which bounds what samples can be. Sides must divide by 4, or by 2.
    device : str, default="auto"
        "auto" is CUDA where there is one.
    precision : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        Type of the matrix products; "auto" is bfloat16 on GPUs and CPUs that multiply it (compute capability 8.0, and
        AVX-512 BF16), float16 on GPUs with tensor cores for that alone (7.x), otherwise float32. float16 is for CUDA,
        and has gradients scaled; elsewhere a model of it draws in float32.
    warm_start : bool, default=False
        Whether another `fit` goes on with the fitted network, for `max_steps` more steps on the data that it is given:
        the same columns and conditions, with the same labels. What the codec learned stays, and the history goes on.
    callbacks : list, optional
        What watches the fit and may end it, called in this order: objects with the methods of
        `tabdiff.training.Callback`, such as `Checkpoint`, `CSVLog`, `PeriodicSamples` and `TensorBoard` there.
    random_state : int, RandomState or None, default=None
        Seeds everything: the same seed gives the same model and the same rows on one machine.
    verbose : int, default=0
        1 shows a progress bar with loss and remaining time.

    Attributes
    ----------
    n_features_in_ : int
        Number of columns, or genes, seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where they are strings.
    schema_ : DataFrame
        What was decided for each column.
    conditions_ : Conditions or None
        The attributes of the condition: their names, kinds, levels and ranges.
    history_ : dict of list
        "step", "loss", "gradient_norm", "learning_rate", "rows_per_second", "seconds" and the peak of "memory" in MB
        (of the GPU, or of the process) for every 50 steps; with early stopping "validation_loss" and, for each of
        these, its "validation_step".
    n_steps_ : int
        Training steps done, all fits of a warm start together.
    n_samples_fit_ : int
        Number of training rows, held-out ones included, those of weight 0 not.
    denoiser_ : Denoiser
        The trained denoiser, of averaged weights.
    guiding_denoiser_ : Denoiser or None
        The small network of autoguidance.
    autoguidance_ : float
        The scale of autoguidance, 1 where there is none.
    model_ : FittedModel
        What was fitted; the other attributes but the first two are parts of it.
    codec_ : object
        Maps containers to tensors and back.
    refinement_ : Refinement or None
        What corrects drawn rows of a table.

    See Also
    --------
    tabdiff.evaluate : Compare real with synthetic data.

    Notes
    -----
    NaN and other missing values are modelled as such: they come out as often, and where, they went in. A column with a
    single value is returned as it is, and does not count in `score_samples`.

    Dates, times and durations are numbers, in the largest unit that they share: dates stay dates. A column of text or
    categories with more than 1,000 levels keeps a code for the commonest; the rare ones are drawn by their frequency
    alone, and so is text in which no value repeats, which looks like an identifier and is warned about. Integers beyond
    2**53 are refused. ``schema_`` says what was decided.

    Examples
    --------
    >>> from tabdiff import DiffusionGenerator
    >>> from tabdiff.datasets import load_penguins
    >>> penguins = load_penguins()
    >>> gen = DiffusionGenerator(max_steps=20, random_state=0)  # 20 steps show the API; leave max_steps out
    >>> gen = gen.fit(penguins, condition="species")
    >>> synthetic = gen.sample(100, condition="Gentoo")
    >>> synthetic.shape, list(synthetic.columns) == list(penguins.columns)
    ((100, 8), True)
    >>> gen.sample(condition={"species": {"Adelie": 3, "Gentoo": 2}})["species"].to_list()
    ['Adelie', 'Adelie', 'Adelie', 'Gentoo', 'Gentoo']

    Images, here of handwritten digits, by their class:

    >>> from sklearn.datasets import load_digits
    >>> digits = load_digits()
    >>> gen = DiffusionGenerator(max_steps=2, hidden_size=8, random_state=0)  # leave max_steps and hidden_size out
    >>> gen = gen.fit(digits.images / 16, digits.target)
    >>> gen.sample(10, condition=7, guidance_scale=1.5).shape
    (10, 8, 8)
    """

    @refuse_old_names
    def __init__(
        self,
        *,
        denoiser: str | NetworkSettings | Callable[[int, int, int], nn.Module] = "auto",
        schedule: Any = "cosine",
        target: str = "v",
        loss: Any = "simple",
        n_timesteps: int | None = None,
        variance: str = "fixed",
        hidden_size: str | int = "auto",
        n_blocks: str | int = "auto",
        dropout: float = 0.0,
        time_embedding: str = "sinusoidal",
        conditioning: str = "auto",
        text_encoder: Any = None,
        condition_dropout: float | dict[Any, float] = 0.1,
        observed_masks: str | float = "auto",
        autoguidance: str | float = "auto",
        refine: str | bool = "auto",
        max_steps: str | int = "auto",
        max_time: float | None = None,
        batch_size: str | int = "auto",
        learning_rate: str | float = "auto",
        training: TrainingOptions | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        categorical_features: Any = "auto",
        dependencies: bool = True,
        constraints: Any = None,
        layer: str | None = None,
        augment: Any = None,
        latent_diffusion: bool = False,
        device: Any = "auto",
        precision: str = "auto",
        warm_start: bool = False,
        callbacks: Any = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.denoiser = denoiser
        self.schedule = schedule
        self.target = target
        self.loss = loss
        self.n_timesteps = n_timesteps
        self.variance = variance
        self.hidden_size = hidden_size
        self.n_blocks = n_blocks
        self.dropout = dropout
        self.time_embedding = time_embedding
        self.conditioning = conditioning
        self.text_encoder = text_encoder
        self.condition_dropout = condition_dropout
        self.observed_masks = observed_masks
        self.autoguidance = autoguidance
        self.refine = refine
        self.max_steps = max_steps
        self.max_time = max_time
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.training = training
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.categorical_features = categorical_features
        self.dependencies = dependencies
        self.constraints = constraints
        self.layer = layer
        self.augment = augment
        self.latent_diffusion = latent_diffusion
        self.device = device
        self.precision = precision
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose

    def set_params(self, **params: Any) -> Self:
        """Set parameters; ``training__ema_decay=0.99`` sets one of the options of training.

        Parameters
        ----------
        **params : dict
            Parameters by name.

        Returns
        -------
        DiffusionGenerator

        Raises
        ------
        ValueError
            For a name that is no parameter; one that was gets told what it is now.
        """
        message = what_replaces(params)
        if message is not None:
            raise ValueError(message)
        nested = any(name.startswith("training__") for name in params)
        if nested and params.get("training", self.training) is None:
            params = {**params, "training": TrainingOptions()}
        return super().set_params(**params)

    # ------------------------------------------------------------------ fit

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        condition: Any = None,
        sample_weight: Any = None,
        resume_from: str | os.PathLike | None = None,
    ) -> Self:
        """Learn to generate rows like those of X.

        Parameters
        ----------
        X : array-like, DataFrame or AnnData of shape (n_samples, n_features), images, folder, or sequences (n_samples,)
            Numbers, categories, strings, booleans, dates and times, with missing values, in any dtype of pandas, NumPy
            or Arrow; a frame of polars or another library that narwhals reads, or a pyarrow table. Images are an array
            (n, h, w), (n, h, w, c) or (n, c, h, w) of uint8, or of floats in [0, 1] or [-1, 1], a list of PIL images,
            or the path of a folder of files, all of one size; the names of its subfolders, if there are any, are the
            condition "class" unless another one is given. A list, 1-D array or Series of strings is sequences over an
            alphabet, such as DNA; so is a Series, or an array of objects, of integer arrays, and a list of such of
            different lengths. X is never changed.
        y : array-like of shape (n_samples,), optional
            Labels or values to condition on; the same as ``condition=y``.
        condition : str, list of str, array, Series or DataFrame, optional
            What samples can be asked for: names of columns (of ``adata.obs`` for AnnData), which are put back on
            output, or values with a row per sample. Strings, categories and booleans are classes, floats continuous,
            integers and times classes up to 20 distinct values; ``conditions_`` has the decision, and a dtype overrides
            it. A missing value teaches the unconditional model only. Each column of an array is a condition of its own;
            vectors, such as embeddings, are an array (n, d) in a dict, ``{"name": array}``, a key of ``adata.obsm``, or
            a column whose entries are arrays (d,). Several vectors a row (tokens) are an array (n, m, d), NaN for
            those that are absent, or entries (m, d). Strings are text with `text_encoder`.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows, not negative; 0 leaves a row out, and equal weights are as none. Rows are drawn in
            proportion to them in training, and the distributions of numbers, the conditions that `sample` draws, held
            out losses and the refinement are weighted, so an integer weight does what so many copies of the row would;
            "auto" sizes, what counts as a spike, and the draws among levels too rare for a code go by the number of
            rows. The codec of an AnnData is fitted on cells repeated in proportion, at most four times as many as
            there are.
        resume_from : path-like, optional
            A folder of the callback `Checkpoint`, whose last checkpoint the fit goes on from, or the path of one of
            them. Without any in the folder, the fit starts from the beginning if a `Checkpoint` of its own writes
            there, so that the same lines start a fit and go on with it. Data and parameters must be those of the
            interrupted fit; with `max_time` None, the CPU and as many threads, the model is bit by bit what it would
            have been. A fit that was complete is taken up at the end of its training.

        Returns
        -------
        DiffusionGenerator
            The fitted estimator.

        Raises
        ------
        ValueError
            For parameters out of range, infinities (the column is named), fewer than two rows, unknown names, lengths
            that differ; for data that do not match what `warm_start` or `resume_from` goes on with.
        TypeError
            For containers or columns that cannot be modelled, and for values, names of columns and annotations of genes
            that `save` could not store: categories hold numbers, strings, booleans, dates, times, periods, intervals,
            decimals, bytes, UUIDs and tuples of such, but no objects of a class of your own.
        OSError
            If a checkpoint cannot be written, and the last one stays; or if there is none to go on from.
        """
        started = time.perf_counter()
        check_parameters(self)
        # Read by another one, so that an error leaves a fitted estimator as it was.
        reader = type(self)(**self.get_params(deep=False))
        inputs = read_fit_inputs(reader, X, y, condition)
        model = fit_model(
            inputs,
            sample_weight,
            SimpleNamespace(**self.get_params(deep=False)),
            previous=self.model_ if self.warm_start and hasattr(self, "model_") else None,
            resume_from=resume_from,
            started=started,
            as_estimator=self._with,
        )
        return self._take(model)

    def _take(self, model: FittedModel) -> Self:
        """Become the estimator of a model."""
        self.__dict__.pop("feature_names_in_", None)
        self.model_, self.n_features_in_ = model, model.n_features
        if model.feature_names is not None:
            self.feature_names_in_ = model.feature_names
        return self

    def _with(self, model: FittedModel) -> Self:
        """Return an estimator of the same parameters with a model."""
        return type(self)(**self.get_params(deep=False))._take(model)

    def _drawing_model(self) -> FittedModel:
        """Return the model as the parameters say now that it is to be drawn from."""
        check_is_fitted(self)
        refinement = None if self.refine is False else self.model_.refinement
        return replace(self.model_, precision=self.precision, refinement=refinement)

    @property
    def codec_(self) -> Any:
        """Maps containers to tensors and back."""
        return self.model_.codec

    @property
    def conditions_(self) -> Conditions | None:
        """The attributes of the condition: their names, kinds, levels and ranges."""
        return self.model_.conditions

    @property
    def denoiser_(self) -> Denoiser:
        """The trained denoiser, of averaged weights."""
        return self.model_.denoiser

    @property
    def guiding_denoiser_(self) -> Denoiser | None:
        """The small network of autoguidance."""
        return self.model_.guiding_denoiser

    @property
    def autoguidance_(self) -> float:
        """The scale of autoguidance, 1 where there is none."""
        return self.model_.autoguidance

    @property
    def refinement_(self) -> Refinement | None:
        """What corrects drawn rows of a table."""
        return self.model_.refinement

    @property
    def history_(self) -> dict[str, list[float]]:
        """How training went."""
        return self.model_.history

    @property
    def n_steps_(self) -> int:
        """Training steps done, all fits of a warm start together."""
        return self.model_.n_steps

    @property
    def n_samples_fit_(self) -> int:
        """Number of training rows, held-out ones included, those of weight 0 not."""
        return self.model_.n_samples

    @property
    def schema_(self) -> pd.DataFrame:
        """What was decided for each column; for cells, what kind of values were found and where."""
        check_is_fitted(self)
        return self.codec_.schema_

    def plot_loss(self, ax: Axes | None = None) -> Axes:
        """Plot the training loss against the step, and that on held-out rows if there were any.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to; by default a new figure.

        Returns
        -------
        matplotlib Axes
        """
        check_is_fitted(self)
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots(figsize=(5, 3.2), layout="constrained")[1]
        ax.plot(self.history_["step"], self.history_["loss"], label="training")
        if self.history_.get("validation_loss"):
            ax.plot(self.history_["validation_step"], self.history_["validation_loss"], label="held out")
            ax.legend()
        ax.set(xlabel="training step", ylabel="loss", title="Training loss")
        return ax

    # --------------------------------------------------------------- sample

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
            Number of steps; "auto" is 50, 25 for rows that are refined, and 1000 for "ddpm".
        obs : DataFrame, optional
            For cells: a row for each, from which conditions are taken and which their ``obs`` starts with.
        like : AnnData, optional
            For cells: those whose composition and total counts are copied, row by row; with another `n_samples`, of
            cells drawn from it. Totals go, among cells of one condition, to those that the model makes as deep.
        library_size : float, array-like of shape (n_samples,) or "match", optional
            For counts: the total of each cell. Reads are taken at random from what the model draws, or added from the
            rates that agree with it, as sequencing the same cell less or more would. "match" draws totals of training
            cells of the same class. By default the model draws them too.
        random_state : int, RandomState or None, default=None
            An integer repeats exactly. None goes on with a stream that `fit` seeded, so that two calls differ.
        batch_size : "auto" or int, default="auto"
            Rows evaluated at once.
        return_condition : bool, default=False
            Whether to return the conditions too.

        Returns
        -------
        ndarray, DataFrame, AnnData, frame of another library or list of PIL images
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
            For a continuous condition, or a held column, outside the range of the fit.
        """
        model = self._drawing_model()
        plan = SamplePlan(
            model,
            n_samples,
            condition,
            guidance_scale=guidance_scale,
            guidance=guidance,
            method=method,
            steps=steps,
            obs=obs,
            like=like,
            library_size=library_size,
            batch_size=batch_size,
            seed=model.seed(random_state),
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
        guidance_scale: float = 1.0,
        guidance: Any = "classifier_free",
        method: Any = "auto",
        steps: str | int = "auto",
        obs: pd.DataFrame | None = None,
        like: Any = None,
        library_size: Any = None,
        random_state: Any = None,
        batch_size: str | int = "auto",
        chunk_size: int = 20_000,
    ) -> None:
        """Draw cells into a file, some at a time: for more than fit into memory.

        Parameters
        ----------
        path : path-like
            Ends in ``.h5ad`` or ``.zarr``. The file appears when it is whole; until then chunks lie beside it.
        n_samples, condition, guidance_scale, guidance, method, steps, obs, like, library_size, random_state, batch_size
            As in `sample`.
        chunk_size : int, default=20000
            Cells drawn at once. The cells depend on it, as random numbers are drawn in another order.

        Raises
        ------
        TypeError
            If the model is not one of cells.
        ValueError
            For another ending of `path`, and as in `sample`.
        FileNotFoundError
            If the folder of `path` does not exist.

        Examples
        --------
        >>> import tempfile, anndata, numpy as np
        >>> from tabdiff import DiffusionGenerator
        >>> adata = anndata.AnnData(np.random.default_rng(0).poisson(1.0, (60, 8)))
        >>> gen = DiffusionGenerator(max_steps=5, random_state=0).fit(adata)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     gen.sample_to(f"{folder}/cells.h5ad", 50, chunk_size=20)
        ...     anndata.read_h5ad(f"{folder}/cells.h5ad").shape
        (50, 8)
        """
        model = self._drawing_model()
        if model.container != "cells":
            raise TypeError("sample_to writes AnnData; this model was fitted on a table or an array, use sample.")
        if isinstance(chunk_size, bool) or not isinstance(chunk_size, int | np.integer) or chunk_size < 1:
            raise ValueError(f"chunk_size must be an integer of at least 1, however: {chunk_size!r}.")
        path = check_path(path)
        plan = SamplePlan(
            model,
            n_samples,
            condition,
            guidance_scale=guidance_scale,
            guidance=guidance,
            method=method,
            steps=steps,
            obs=obs,
            like=like,
            library_size=library_size,
            batch_size=batch_size,
            seed=model.seed(random_state),
        )
        write_cells(path, plan.n, (plan.rows(i, i + chunk_size)[0] for i in range(0, plan.n, int(chunk_size))))

    def latent(self, adata: Any, *, condition: Any = None) -> np.ndarray:
        """Where cells lie for the model, for neighbours, UMAP or trajectories: ``adata.obsm["X_tabdiff"] = ...``.

        The principal components of the expression that the model expects of each cell, which is free of counting noise
        and of library size, and spans the differences between the classes of the condition beside those within. Drawn
        cells carry theirs in ``obsm["X_tabdiff"]``; to compare real with drawn cells, give both to this method.

        A model of a condition takes cells for what they are said to be, and its map separates the classes even where
        labels are wrong. For a map that is to show whether classes differ, fit without a condition.

        Parameters
        ----------
        adata : AnnData
            Cells with the genes of the fit. It is never changed.
        condition : optional
            Their condition, in the forms of `sample` that go row by row or give one value; by default their own.

        Returns
        -------
        ndarray of shape (n_cells, n_components)
            float32, at most 50 components.

        Raises
        ------
        TypeError
            If the model or `adata` is not one of cells.
        ValueError
            For genes that are missing, or cells without the condition of the fit.
        """
        check_is_fitted(self)
        model = self.model_
        if model.container != "cells":
            raise TypeError("latent is for models of AnnData; this one was fitted on a table or an array.")
        features, own = read_features(self, adata, "cells", model.condition_names, model.source)
        return latent(model, features, condition, own)

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
    ) -> Any:
        """Fill the holes of a table, given the cells that are there, or of images, given the other pixels.

        The model may have been fitted on the same table, holes and all. They are taken to be missing at random: what
        is missing depends on the cells that are there only (Rubin, 1976). What was never seen at fit stays as it is: a
        level that its column did not have says nothing about the holes beside it, and a number outside its range
        counts as the end of that. A missing value in a column that had none is a hole too.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
            Rows with the columns of the fit, in which missing values of any kind are holes. It is never changed.
        condition : optional
            Condition of the rows, in the forms of `sample` that go row by row or give one value. By default that of
            X's own columns, a missing one being unknown, or else none.
        mask : array-like of bool, optional
            For images, and needed there: True where a pixel is missing. Of shape (h, w) for all, (n, h, w), or that of
            the images. They are drawn by RePaint (Lugmayr et al., 2022); all other pixels stay exactly as they are.
            ``method=RePaint(n_resamples=10, jump_length=10)`` of `tabdiff.diffusion` has that paper's settings.
        n_draws : int, default=1
            Number of completed tables. Several, drawn, show how uncertain the holes are: multiple imputation.
        strategy : {"auto", "mean", "draw"}, default="auto"
            For tables; images are drawn. "mean" is the best guess: the mean of numbers, rounded where the column holds
            integers or times, and the likeliest level of categories, each over draws. "draw" is a draw from what the
            model believes, which keeps the spread of the columns and how they depend on each other. "auto" is "mean"
            for one table, "draw" for several.
        method : str or Sampler, default="auto"
            As in `sample`.
        steps : "auto" or int, default="auto"
            Number of steps of each draw; "auto" is 25 for a draw and 5 for each of the 30 that a mean is taken of.
        random_state : int, RandomState or None, default=None
            An integer repeats exactly. None goes on with a stream that `fit` seeded.
        batch_size : "auto" or int, default="auto"
            Rows evaluated at once.

        Returns
        -------
        ndarray or DataFrame, or list of them
            X with its holes filled and everything else as it is, index and columns too; with ``n_draws > 1`` a list.
            A column gets the dtype of the fit if that holds its values. Holes stay in condition columns, which the
            model does not draw, and in columns that had no value at fit.

        Raises
        ------
        ValueError
            For columns that differ from the fit's, a condition that was not there, infinities, parameters out of range,
            or a model that was fitted with ``observed_masks=0``.
        TypeError
            For AnnData, for tables with a callable denoiser or a mask.

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
        settings: dict[str, Any] = dict(n_draws=n_draws, strategy=strategy, method=method, steps=steps)
        settings |= dict(batch_size=batch_size, seed=model.seed(random_state))
        if model.container == "images":
            return impute_images(model, X, mask, condition=condition, **settings)
        if mask is not None:
            raise TypeError("mask is for images; holes of a table are its missing values.")
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

    # ---------------------------------------------------------------- score

    def score_samples(
        self, X: Any, *, condition: Any = None, method: str = "bound", return_std: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Return the log-likelihood of each row, or a lower bound on it, in nats.

        Continuous values count by their density, spikes and categories by their probability. Everything is evaluated
        at fixed times and noises in float64, so a row's score does not depend on the rows beside it. The bound is a
        mean over noise, estimated by a rule that is exact for normal data of up to eight columns; `return_std` tells
        how far off the estimate is likely to be.
        Columns that others determine (``schema_["determined_by"]``) take no part where they keep the rule.

        What was never seen at fit makes a row unlikely, but not impossible: for each level that its column did not
        have, missing value in a column without any, and cell that breaks a dependency, a row scores
        ``log(n_samples_fit_ + 1)`` below the least likely of the rows with a value that was seen there. The density of
        a number outside its range falls off exponentially (see ``docs/unseen.md``).

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features), or images as in `fit`
            Rows; a DataFrame may carry the condition columns. Of bytes of images it is a bound on their probability.
        condition : optional
            Condition of the rows, in the forms of `sample` that go row by row or give one value. By default that of
            X's own columns, or else none: the unconditional likelihood.
        method : {"bound", "continuous", "flow"}, default="bound"
            "bound" is the variational bound, for any data: with `n_timesteps` the sum over the steps of that chain (Ho
            et al., 2020), whose network was trained at its times alone; else the integral over continuous time
            (Kingma et al., 2021). "continuous" is the integral in either case, which is tighter where steps are few and
            the network knows what to do between them. "flow" is the likelihood of the
            probability-flow ODE (Song et al., 2021), for numbers without missing values; it costs more, and is
            inexact for rows far from all data.
        return_std : bool, default=False
            Whether to return the standard error that the choice of noises leaves in each score too. Rows share the
            noises, so their errors do not average out; 0 for "flow".

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            float64, higher is likelier.
        std : ndarray of shape (n_samples,)
            Only if `return_std`.

        Raises
        ------
        ValueError
            For columns that differ from the fit's, a condition that was not there, infinities, an unknown method, or
            "flow" with categories or missing values.
        TypeError
            For AnnData, whose likelihood is not available.
        """
        features, codes = self._scored_rows(X, condition, "score_samples")
        scores, std = log_likelihood(self.model_, features, codes, method=method)
        return (scores, std) if return_std else scores

    def bits_per_dim(
        self, X: Any, *, condition: Any = None, method: str = "bound", return_std: bool = False
    ) -> float | tuple[float, float]:
        """Return the bits that an entry of quantised rows takes on average under the model, lower is better.

        An entry is a byte of an image, a cell of a table, or a letter of a sequence. Bytes and numbers are dequantised
        by uniform noise, whose mean log-density bounds their log-probability from below. Rows have noises of their
        own, fixed by their order, so the standard error falls with the number of rows.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features), images of bytes, or sequences
            Rows as in `fit`, without the condition or with its columns.
        condition : optional
            As in `score_samples`.
        method : {"bound", "continuous"}, default="bound"
            As in `score_samples`.
        return_std : bool, default=False
            Whether to return the standard error of the mean too: that of other rows of the same kind, and of the noise.

        Returns
        -------
        bits : float
        std : float
            Only if `return_std`; NaN for a single row.

        Raises
        ------
        ValueError
            For images of floats and columns of continuous numbers, whose density stands for no number of bits.
        TypeError
            For AnnData, whose likelihood is not available.

        References
        ----------
        Theis, van den Oord and Bethge, "A note on the evaluation of generative models", 2016.

        Examples
        --------
        >>> import numpy as np
        >>> from tabdiff import DiffusionGenerator
        >>> X = np.random.default_rng(0).integers(0, 4, (500, 2))
        >>> gen = DiffusionGenerator(max_steps=60, refine=False, random_state=0).fit(X)  # two fair bits a cell
        >>> 1.9 < gen.bits_per_dim(X) < 2.4
        True
        """
        features, codes = self._scored_rows(X, condition, "bits_per_dim")
        bits = bits_of_rows(self.model_, features, codes, method=method)
        std = float(bits.std(ddof=1) / len(bits) ** 0.5) if len(bits) > 1 else float("nan")
        return (float(bits.mean()), std) if return_std else float(bits.mean())

    def _scored_rows(self, X: Any, condition: Any, caller: str) -> tuple[Any, Tensor | None]:
        """Return what rows hold apart from their condition, and the condition as codes (n, k)."""
        check_is_fitted(self)
        model = self.model_
        features, own = read_features(self, X, model.container, model.condition_names, model.source)
        if model.container == "cells":
            raise TypeError(f"{caller} is not available for AnnData; fit on a DataFrame or array to score rows.")
        if model.codec.random_:
            raise TypeError(f"{caller} is not available with latent_diffusion=True; fit without it to score images.")
        return features, condition_codes(model, int(features.shape[0]), own, condition)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None, *, condition: Any = None) -> float:
        """Return the mean of `score_samples`, higher is better.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,), optional
            Their condition, where `fit` was given ``y``; ignored otherwise.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the mean.
        condition : optional
            As in `score_samples`.

        Returns
        -------
        float
        """
        check_is_fitted(self)
        if y is not None and condition is None and self.model_.source == "y":
            condition = condition_frame(y, len(y), "y")
        weights = None if sample_weight is None else read_array(sample_weight, "sample_weight")
        return float(np.average(np.asarray(self.score_samples(X, condition=condition)), weights=weights))

    # ---------------------------------------------------------- persistence

    def save(self, path: str | os.PathLike) -> None:
        """Write the fitted model to a folder or a file, which hold no code: opening them is safe, unlike a pickle's.

        The parameter `callbacks` is left out: it belongs to a fit and not to its model. So is `text_encoder`, a
        function, which `load` takes again.

        Parameters
        ----------
        path : path-like
            A folder, made if need be, for ``config.json`` and ``model.safetensors``; or a file that ends in
            ``.safetensors``, which holds both. A model that is there already is replaced.

        Raises
        ------
        TypeError
            If the denoiser is a callable, or another parameter an object: only `pickle` and `joblib` keep those, so
            that `fit` takes them. What `fit` reads of the data can be saved, or it refuses them.
        FileExistsError
            If `path` is something else that is there already.
        """
        check_is_fitted(self)
        model_files.write_model(path, persistence.describe(self.model_, self.get_params(deep=False)))

    @classmethod
    def load(cls, path: str | os.PathLike, *, device: Any = "auto", text_encoder: Any = None) -> DiffusionGenerator:
        """Read a model that `save` wrote, on any machine; it never runs code of the file.

        Parameters
        ----------
        path : path-like
            The folder or the file.
        device : str, default="auto"
            Where the network goes.
        text_encoder : callable or dict, optional
            That of the fit, which is not saved, for a model whose condition is text; without it the model knows the
            texts that it was trained on, and no others.

        Returns
        -------
        DiffusionGenerator
            Fitted. Its stream of samples goes on where that of the saved model stood, so two loads of one model draw
            the same rows; pass `random_state` to `sample` to have others.

        Raises
        ------
        tabdiff.io.serialization.ModelFileError
            If the model is missing, damaged, or of another format version.
        """
        target = resolve_device(device)
        saved = model_files.read_model(path)
        try:
            model, parameters = persistence.restore(saved)
            gen = cls(**parameters, device=device)
        except Exception as error:  # whatever a file can bring about
            raise model_files.damaged(path, error) from error
        if text_encoder is not None:
            model.bind_text_encoder(text_encoder)
            gen.set_params(text_encoder=text_encoder)
        return gen._take(model.to(target))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
