#pragma once

// The interface of libfuse that this folder is written for, chosen in one place.
#define FUSE_USE_VERSION 314

#include <fuse_lowlevel.h>
