"""No pickle runs code; tests/io/gadgets.py has them all."""

import gadgets
import pytest
from forked import Forked


@pytest.mark.thorough
def test_no_gadget_runs(tmp_path):
    done = Forked(lambda: gadgets.main(tmp_path), tmp_path).ended()
    assert done.returncode == 0, done.stdout + done.stderr
    files = int(done.stdout.split()[0])
    assert files >= 1000
    assert ", 0 opened [], 0 events []" in done.stdout
