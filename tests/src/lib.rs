//! System tests: the real binary, real peers. They are in `tests/tests/`; nothing is here.
