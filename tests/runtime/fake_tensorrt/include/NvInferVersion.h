// A stand-in for tests: the version of TensorRT that the stand-in beside it plays.
#pragma once

#define NV_TENSORRT_MAJOR 10
#define NV_TENSORRT_MINOR 3
