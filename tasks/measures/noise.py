"""Screens that look at the model's noise prediction only."""

import numpy as np
import torch


def noise_norm(eps_text: torch.Tensor, eps_empty: torch.Tensor) -> np.ndarray:
    """[n] float32 text-conditional noise norm ||eps_text - eps_empty||_2 over all latent dimensions (Wen et al. 2024, eq. 4).

    eps_text, eps_empty [n, ...] noise predictions with and without the caption; in [0, inf), larger is more suspect. Half
    precision is widened before the difference. Raises ValueError when the shapes differ.
    """
    if eps_text.shape != eps_empty.shape:
        raise ValueError(f"eps_text {tuple(eps_text.shape)} and eps_empty {tuple(eps_empty.shape)} differ; pass one batch")
    difference = eps_text.detach().float() - eps_empty.detach().float()
    return np.asarray(torch.linalg.vector_norm(difference.flatten(1), dim=1).cpu().numpy())
