"""The one estimator: fit on a container, sample the same container."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Self

from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted
from torch import nn

from tabdiff.codecs import CODECS
from tabdiff.codecs.base import Codec
from tabdiff.codecs.inputs import read_fit_inputs
from tabdiff.estimators.drawing import DrawingMixin
from tabdiff.estimators.parameters import check_parameters
from tabdiff.estimators.scoring import ScoringMixin
from tabdiff.io import model_files
from tabdiff.model import persistence
from tabdiff.model.fit import fit_model
from tabdiff.model.fitted import FittedModel
from tabdiff.model.networks import NetworkSettings
from tabdiff.model.old_names import refuse_old_names, what_replaces
from tabdiff.training import TrainingOptions
from tabdiff.utils.device import resolve_device

__all__ = ["DiffusionGenerator"]


class DiffusionGenerator(DrawingMixin, ScoringMixin, DensityMixin, BaseEstimator):
    """Diffusion model of a table, an array, cells, images or sequences: learns from rows, draws new ones like them.

    The container that goes in comes out: a DataFrame gives a DataFrame with the same columns, dtypes, categories and
    missingness; an AnnData gives an AnnData with the same genes, integer counts where it was trained on counts, and
    labels in ``obs``; a MuData gives a MuData with the same modalities; an array gives an array; a polars frame or a
    pyarrow table gives one of the same schema; images come out in the layout, dtype and range that went in. Labels go
    in and labels come out.

    Parameters
    ----------
    denoiser : "auto", "mlp", "dit", "unet", object with settings or callable, default="auto"
        The network: "mlp", a residual MLP; "dit", a diffusion transformer (Peebles and Xie, 2023) with a token for each
        column, latent dimension, patch of an image or position of a sequence; or "unet", for images, of a size that
        suits them (`tabdiff.nn.unet.UNET_PRESETS`): on a GPU that of Ho et al. (2020) for 32 × 32 pixels, on a CPU at
        most 32 channels at the first level. "auto" is "unet" for images and else "mlp". On a CPU a step of the
        transformer takes four to thirty times as long as the MLP's, and within the same time the MLP's tables, cells
        and digits are better, though step by step the transformer learns more (see docs/benchmarks). Choose "dit"
        for long fits, where attention is cheap, and for conditions of several vectors a row, to which it attends one by
        one where the MLP sees their mean. A callable
        ``denoiser(n_inputs, n_outputs, condition_size)`` returns an ``nn.Module`` that is called as ``network(x, t,
        c)`` with x of shape (B, n_inputs), t of shape (B,) in [0, 1], c of shape (B, condition_size) or None, and
        returns (B, n_outputs). An object (`tabdiff.MLP`, `tabdiff.DiT`, `tabdiff.UNet`) has the network's name and all
        of its settings, such as dropout and where time and condition enter.
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
        Width and depth of the network. "auto" is 256 and 3 for the MLP. For tables of 5,000 rows or more it is 512 and
        4 on a GPU; on a CPU 128 and 3, where a row is drawn several times as fast, or 256 and 3 for wide rows (more
        than 512 numbers and entries of embeddings together), and from 15,000 rows on, if `max_time` is None or 450 or
        more. For the transformer it is 96 and 3, and 128 and 4 for such tables. Of a U-Net the channels of
        its first level, and the residual blocks of each level.
    text_encoder : callable or dict, optional
        What turns conditions that are text into numbers: from a list of n texts to vectors (n, d), or to tokens, an
        array (n, m, d) or a list of n arrays (m, d). Then every condition of strings, categories excepted, is text, and
        `sample` takes texts that were never seen. A dict ``{name: callable}`` says which conditions are text.
    condition_dropout : float or dict, default=0.1
        Probability with which a row's condition is hidden in training, which teaches the unconditional model. A dict
        from names of conditions to probabilities hides each of these by itself, ``{"cell_type": 0.3, "dose": 0.3}``,
        which teaches the model given some of them too, as `MultiConditionGuidance` needs; the share of rows without any
        condition is then the product, and conditions that are not named are never hidden.
    autoguidance : "auto" or float, default="auto"
        Scale by which the numbers of a table or array are led away from what a small network makes of them that is
        trained beside the MLP for a twentieth of its time (autoguidance, Karras et al., 2024). Above 1 they follow the
        other columns more closely, and sampling takes a third longer; 1 leaves it out. "auto" tries 1 to 2 where there
        are 5,000 rows or more, a network of more than 128 units and enough training steps (about 420 of 512 rows), and
        takes what trees can tell from real rows least (``autoguidance_``). It counts in `sample`, not in `impute` or
        likelihoods.
    refine : "auto" or bool, default="auto"
        Whether rows of a DataFrame, and sequences of up to 100 positions, are refined as they are drawn: the marginals
        of numbers are corrected, rows that trees can tell from training rows are rejected (Azadi et al., 2019), and so
        are rows of columns and pairs that come too often, so that sampling takes two to four times as long. From 1,000
        rows at a time, drawn without a condition, they are chosen together, closer to the training rows' shares than a
        sample is. "auto" refines from 1,000 training rows on, after training steps of some 27,000 rows or more. See
        `tabdiff.model.refinement.refinement`.
    max_steps : "auto" or int, default="auto"
        Training steps; "auto" follows the number of rows, from 200 to 10,000; for images from 500 to 2,000 on a CPU,
        and from 2,000 to 50,000 on a GPU.
    max_time : float, optional
        Seconds of `fit` at most, to within a tenth. Results then depend on the machine's speed. On tables of 15,000
        rows or more 300 and more, or None, are for the best rows; less is for many of them (see `hidden_size`, and
        `sample`, which then draws refined rows in 25 steps in place of 16).
    batch_size : "auto" or int, default="auto"
        Rows a training step; "auto" is 512, fewer where there are fewer rows, and 128 for images.
    learning_rate : "auto" or float, default="auto"
        Of the optimiser, after warm-up. "auto" is 1e-3; 3e-3 for an MLP of at most 128 units and a table of 5,000 rows
        or more; for a U-Net less the wider it is, 2e-4 at 128 channels.
    training : TrainingOptions, optional
        What is rarely changed: optimiser, warm-up and decay of the rate, averaging of the weights, clipping and
        accumulation of gradients, how times are drawn, how many rows are shown with some of their columns given
        (``observed_masks``), and what the fit may tell of single rows (``privacy``). None is ``TrainingOptions()``.
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
    constraints : list of str, optional
        What holds in every generated row, between columns of a DataFrame that hold numbers or times: ``a <= b``,
        ``a < b``, ``total = a + b - c``. A name with spaces stands in backticks. The training rows must keep them.
    layer : str, optional
        For AnnData: where the expression is, a layer's name, "X" or "raw". By default counts are looked for in
        ``layers["counts"]``, ``X`` and ``raw``; where there are none, X is modelled as continuous expression, with a
        warning.
    codec : codec with settings, optional
        How the data become numbers, where its settings are to be others than the usual: `tabdiff.TableCodec`
        (functional dependencies or none), `CellCodec` and `MultimodalCodec` (size of the latent space), `ImageCodec`
        (augmentation), `LatentImageCodec` (diffusion in the latents of an autoencoder), `SequenceCodec` (alphabet) or
        `ArrayCodec`. It is cloned; the fitted one is ``codec_``.
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
    privacy_ : dict or None
        What a differentially private fit spent, and how: "epsilon", "delta", "max_grad_norm", "noise_multiplier",
        "sample_rate", "steps", what was counted, and what of each column is public. None for an ordinary fit.
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
        text_encoder: Any = None,
        condition_dropout: float | dict[Any, float] = 0.1,
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
        constraints: Any = None,
        layer: str | None = None,
        codec: Codec | None = None,
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
        self.text_encoder = text_encoder
        self.condition_dropout = condition_dropout
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
        self.constraints = constraints
        self.layer = layer
        self.codec = codec
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
        denoiser = params.get("denoiser", self.denoiser)
        for name, value in params.items():
            if name.startswith("denoiser__") and not isinstance(denoiser, NetworkSettings):
                setting = name.removeprefix("denoiser__")
                raise ValueError(
                    f"denoiser must be an object with settings for {name} to be set; got {denoiser!r}. Use "
                    f"denoiser=tabdiff.MLP({setting}={value!r}), or a DiT or UNet."
                )
            if name.startswith("codec__") and params.get("codec", self.codec) is None:
                setting = name.removeprefix("codec__")
                kinds = [kind.__name__ for kind in CODECS.values() if setting in kind().get_params()] or ["TableCodec"]
                raise ValueError(
                    f"codec must be an object with settings for {name} to be set; got None. Use codec=tabdiff."
                    f"{kinds[-1] if 'TableCodec' not in kinds else 'TableCodec'}({setting}={value!r})."
                )
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
        cache_dir: str | os.PathLike | None = None,
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
            different lengths. X is never changed. Tables that do not fit into memory: the path, folder or glob of
            Parquet, Arrow or CSV files, a ``pyarrow.dataset.Dataset``, a polars LazyFrame or an iterator of frames;
            see `cache_dir`. Cells that do not: a backed AnnData, or the path of an ``.h5ad`` or ``.zarr`` file, whose
            expression is kept in a temporary file (``TMPDIR``) as it is learned from. A MuData is raw counts in each
            modality, such as RNA, surface proteins and accessibility, of cells that are in all of them.
        y : array-like of shape (n_samples,), optional
            Labels or values to condition on; the same as ``condition=y``.
        condition : str, list of str, array, Series or DataFrame, optional
            What samples can be asked for: names of columns (of ``obs`` for AnnData and MuData), which are put back on
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
        inputs = read_fit_inputs(reader, X, y, condition, in_files=True, cache_dir=cache_dir)
        model = fit_model(
            inputs,
            sample_weight,
            SimpleNamespace(**self.get_params(deep=False)),
            previous=self.model_ if self.warm_start and hasattr(self, "model_") else None,
            resume_from=resume_from,
            cache_dir=cache_dir,
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
