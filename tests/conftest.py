from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Networks of test size are slower with several threads than with one, and far slower beside another process."""
    torch.set_num_threads(1)
