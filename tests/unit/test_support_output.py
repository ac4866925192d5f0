"""What the real proxy has written is there when a test looks, and not only soon after."""

import os

from support.output import Output


def test_what_was_written_before_is_there_at_once() -> None:
    reading, writing = os.pipe()
    output = Output(reading)
    try:
        for number in range(3000):
            os.write(writing, b"line %d\nand more" % number)
            assert output.lines()[-1].endswith(f"line {number}\n")
    finally:
        os.close(writing)
    output.join(10)
    assert output.lines()[-1] == "and more"
    assert len(output.lines()) == 3001
    os.close(reading)
