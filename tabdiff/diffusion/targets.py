r"""What a network predicts, and how one prediction turns into another.

With :math:`x_t = \alpha x_0 + \sigma \varepsilon` each target is a linear combination of the clean row and
the noise, so that any of them, together with :math:`x_t`, gives all the others:

=======  =============================================  ==============================================================
target   definition                                     clean row
=======  =============================================  ==============================================================
eps      :math:`\varepsilon`                            :math:`(x_t - \sigma \varepsilon) / \alpha`
x0       :math:`x_0`                                    itself
v        :math:`\alpha \varepsilon - \sigma x_0`        :math:`(\alpha x_t - \sigma v) / (\alpha^2 + \sigma^2)`
flow     :math:`\varepsilon - x_0`                      :math:`(x_t - \sigma u) / (\alpha + \sigma)`
score    :math:`-\varepsilon / \sigma`                  :math:`(x_t + \sigma^2 s) / \alpha`
edm      :math:`(x_0 - c_{skip} x_t) / c_{out}`         :math:`c_{skip} x_t + c_{out} F`
=======  =============================================  ==============================================================

On a rectified flow ``flow`` is the velocity :math:`dx_t/dt`. ``edm`` is the preconditioning of Karras et al.
(2022) for any :math:`\alpha`: with data of variance :math:`s^2`, :math:`c_{in} = (\alpha^2 s^2 +
\sigma^2)^{-1/2}`, :math:`c_{skip} = \alpha s^2 c_{in}^2`, :math:`c_{out} = \sigma s c_{in}`. For a
variance-preserving schedule and :math:`s = 1` it is :math:`-v`.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["TARGETS", "convert", "edm_coefficients", "target_of", "to_eps", "to_x0"]

TARGETS = ("eps", "x0", "v", "flow", "score", "edm")


def edm_coefficients(alpha: Tensor, sigma: Tensor, sigma_data: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``(c_in, c_skip, c_out)`` of EDM's preconditioning, generalised to any `alpha`.

    Parameters
    ----------
    alpha, sigma : Tensor
        Coefficients of the signal and the noise, of one shape.
    sigma_data : float
        Standard deviation of the data.

    Returns
    -------
    tuple of Tensor
        Scales of the input, of what skips the network, and of its output.

    References
    ----------
    Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, table 1.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import edm_coefficients
    >>> [round(float(c), 3) for c in edm_coefficients(torch.tensor(1.0), torch.tensor(2.0))]
    [0.447, 0.2, 0.894]
    """
    c_in = (alpha**2 * sigma_data**2 + sigma**2).rsqrt()
    return c_in, alpha * sigma_data**2 * c_in**2, sigma * sigma_data * c_in


def to_x0(
    output: Tensor,
    x_t: Tensor,
    alpha: Tensor | float,
    sigma: Tensor | float,
    target: str,
    *,
    sigma_data: float = 1.0,
) -> Tensor:
    """Return the clean row that a prediction of `target` stands for.

    Parameters
    ----------
    output : Tensor
        The prediction, shape ``(B, *)``.
    x_t : Tensor
        The noisy row, of the same shape.
    alpha, sigma : Tensor or float
        Coefficients of the signal and the noise, broadcastable to `x_t`.
    target : str
        One of ``TARGETS``.
    sigma_data : float
        Standard deviation of the data; only "edm" uses it.

    Returns
    -------
    Tensor
        The clean rows, of the shape of `x_t`.

    Raises
    ------
    ValueError
        If `target` is unknown, or is "eps" or "score" where `alpha` is 0: pure noise says nothing about the
        row.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import to_x0
    >>> to_x0(torch.tensor([0.5]), torch.tensor([1.0]), 0.6, 0.8, "eps").round(decimals=3)
    tensor([1.])
    """
    alpha, sigma = _coefficients(alpha, sigma, x_t)
    check_target(target)
    if target in ("eps", "score") and bool((alpha == 0).any()):
        raise ValueError(
            f"a prediction of {target!r} cannot give the clean row where alpha = 0, because x_t is then pure noise; "
            "use the target 'v', 'x0', 'flow' or 'edm', or a schedule that keeps some signal at t_max"
        )
    return _to_x0(output, x_t, alpha, sigma, target, sigma_data)


def _to_x0(output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor, target: str, sigma_data: float = 1.0) -> Tensor:
    """`to_x0` without its checks, which would make a GPU wait for the host."""
    if target == "x0":
        return output
    if target == "eps":
        return (x_t - sigma * output) / alpha
    if target == "v":
        return (alpha * x_t - sigma * output) / (alpha**2 + sigma**2)
    if target == "flow":
        return (x_t - sigma * output) / (alpha + sigma)
    if target == "score":
        return (x_t + sigma**2 * output) / alpha
    _, c_skip, c_out = edm_coefficients(alpha, sigma, sigma_data)
    return c_skip * x_t + c_out * output


def to_eps(x0: Tensor, x_t: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
    """Return the noise that makes `x_t` of the clean row `x0`.

    Parameters
    ----------
    x0 : Tensor
        Clean rows, shape ``(B, *)``.
    x_t : Tensor
        Noisy rows, of the same shape.
    alpha, sigma : Tensor or float
        Coefficients of the signal and of the noise.

    Returns
    -------
    Tensor
        The noise, of the shape of `x_t`.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import to_eps
    >>> to_eps(torch.tensor([1.0]), torch.tensor([1.0]), 0.6, 0.8).round(decimals=3)
    tensor([0.5000])
    """
    return (x_t - alpha * x0) / sigma


def target_of(
    x0: Tensor,
    eps: Tensor,
    alpha: Tensor | float,
    sigma: Tensor | float,
    target: str,
    *,
    sigma_data: float = 1.0,
) -> Tensor:
    """Return what a network with this `target` should have predicted, given the row and the noise.

    Parameters
    ----------
    x0, eps : Tensor
        The clean row and the noise, shape ``(B, *)``.
    alpha, sigma : Tensor or float
        Coefficients of the signal and the noise, broadcastable to `x0`.
    target : str
        One of ``TARGETS``.
    sigma_data : float
        Standard deviation of the data; only "edm" uses it.

    Returns
    -------
    Tensor
        The target, of the shape of `x0`.

    Raises
    ------
    ValueError
        If `target` is unknown.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import target_of
    >>> target_of(torch.tensor([1.0]), torch.tensor([0.5]), 0.6, 0.8, "v").round(decimals=3)
    tensor([-0.5000])
    """
    alpha, sigma = _coefficients(alpha, sigma, x0)
    check_target(target)
    if target == "x0":
        return x0
    if target == "eps":
        return eps
    if target == "v":
        return alpha * eps - sigma * x0
    if target == "flow":
        return eps - x0
    if target == "score":
        return -eps / sigma
    _, c_skip, c_out = edm_coefficients(alpha, sigma, sigma_data)
    return (x0 - c_skip * (alpha * x0 + sigma * eps)) / c_out


def convert(
    output: Tensor,
    x_t: Tensor,
    alpha: Tensor | float,
    sigma: Tensor | float,
    source: str,
    target: str,
    *,
    sigma_data: float = 1.0,
) -> Tensor:
    """Return a prediction of `source` as one of `target`.

    Parameters
    ----------
    output, x_t : Tensor
        The prediction and the noisy row, shape ``(B, *)``.
    alpha, sigma : Tensor or float
        Coefficients of the signal and the noise, broadcastable to `x_t`.
    source, target : str
        Two of ``TARGETS``.
    sigma_data : float
        Standard deviation of the data; only "edm" uses it.

    Returns
    -------
    Tensor
        The other prediction, of the same shape.

    Raises
    ------
    ValueError
        If a target is unknown, or `source` is "eps" or "score" where `alpha` is 0.

    Examples
    --------
    >>> import torch
    >>> x_t, eps = torch.tensor([1.0]), torch.tensor([0.5])
    >>> convert(eps, x_t, 0.6, 0.8, "eps", "x0")
    tensor([1.])
    """
    check_target(target)
    x0 = to_x0(output, x_t, alpha, sigma, source, sigma_data=sigma_data)
    return target_of(x0, to_eps(x0, x_t, alpha, sigma), alpha, sigma, target, sigma_data=sigma_data)


def check_target(target: str) -> None:
    """Raise a ValueError that lists the known targets if `target` is none of them."""
    if target not in TARGETS:
        raise ValueError(f"unknown target {target!r}; known ones are {', '.join(TARGETS)}")


def _coefficients(alpha: Tensor | float, sigma: Tensor | float, like: Tensor) -> tuple[Tensor, Tensor]:
    return torch.as_tensor(alpha, dtype=like.dtype), torch.as_tensor(sigma, dtype=like.dtype)
