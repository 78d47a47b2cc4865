// libuv is the event loop below the server: sockets, timers, signals and the wake-up of one thread.
// This header exists so that the module map names a file of ours and not one of the distribution's.
#ifndef GRAFT_CUV_SHIM_H
#define GRAFT_CUV_SHIM_H

#include <uv.h>

#endif
