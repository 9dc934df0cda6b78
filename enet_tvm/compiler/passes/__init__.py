"""Relax passes, one a file; `enet_tvm.compiler.pipeline` says in which order they run."""

import tvm_ffi

from enet_tvm.errors import UserError

# TVM runs passes from C++, through which only exceptions that it knows come as what they are.
tvm_ffi.register_error("UserError", UserError)
