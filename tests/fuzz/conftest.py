import os
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def scratch():
    """A folder that is written and emptied thousands of times: in memory, where the system has such a place."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)
