"""Bad input gets a clear error and loses nothing: one file per kind of input, one standard (standard.py).

pytest tests/malformed        every case is one really malformed thing; "N passed" is N of N
"""
