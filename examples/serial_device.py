"""Read a serial device: frames with a checksum, found again after noise on the line.

    python examples/serial_device.py /dev/ttyUSB0
    python examples/serial_device.py /dev/ttyUSB0 10      (ends after 10 readings)

A frame is `aa 55`, a length of one byte, the reading, and its CRC-16 (Modbus). What is no such
frame, or has a wrong checksum, is skipped up to the next `aa 55`, and reported.
"""

import os
import sys
import termios
import tty

from framecodec import Check, Codec, FramePipe

device = sys.argv[1]
count = int(sys.argv[2]) if len(sys.argv) > 2 else None
codec = Codec.uint(1, magic=b"\xaa\x55", check=Check("crc16-modbus", 2))


class Noise:
    def frame_discarded(self, conn, error):
        print("discarded:", type(error).__name__, flush=True)


def open_serial(path):
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_NOCTTY), "r+b", buffering=0)
    tty.setraw(file)
    settings = termios.tcgetattr(file)
    settings[4] = settings[5] = termios.B115200  # the speed, in both directions
    termios.tcsetattr(file, termios.TCSANOW, settings)
    return file


with FramePipe(open_serial(device), codec=codec, on_invalid="resync", observer=Noise()) as line:
    line.send(b"start")
    for number, reading in enumerate(line, 1):
        print("reading:", reading.decode(), flush=True)
        if number == count:
            break
