/* A driver (libcuda.so.1) and its NVML (libnvidia-ml.so.1) for machines without a GPU: what they tell is in the environment,
   and what is not there is not supported, as on real GPUs. Declarations are those of NVIDIA's nvml.h and cuda.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, DRIVER_NOT_LOADED = 9 };
static const char BUS_ID[] = "0000:65:00.0"; /* CUDA's first device, and NVML's second */
static int second;

/* Writes a number of the environment. */
static int tell(const char* name, unsigned* value) {
  const char* text = getenv(name);
  if (text == NULL) return NOT_SUPPORTED;
  *value = (unsigned)strtoul(text, NULL, 0);
  return SUCCESS;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

int cuInit(unsigned flags) { return (int)flags; }
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal; }
int cuDeviceGetPCIBusId(char* text, int room, int device) {
  if (getenv("FAKE_NO_DEVICE") != NULL) return 100;
  snprintf(text, (size_t)room, "%s", BUS_ID);
  return device;
}

int nvmlInitWithFlags(unsigned flags) { return getenv("FAKE_NOT_LOADED") != NULL ? DRIVER_NOT_LOADED : (int)flags; }
int nvmlShutdown(void) { return SUCCESS; }
const char* nvmlErrorString(int error) { return error == DRIVER_NOT_LOADED ? "Driver Not Loaded" : "Not Supported"; }
int nvmlSystemGetDriverVersion(char* text, unsigned room) {
  snprintf(text, room, "580.65.06");
  return SUCCESS;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char* bus_id, void** device) {
  *device = &second;
  return strcmp(bus_id, BUS_ID) ? NOT_FOUND : SUCCESS;
}
int nvmlDeviceGetName(void* device, char* text, unsigned room) {
  snprintf(text, room, "NVIDIA Fake");
  return device == &second ? SUCCESS : INVALID_ARGUMENT;
}
int nvmlDeviceGetTotalEnergyConsumption(void* device, unsigned long long* millijoules) {
  unsigned watts;
  if (tell("FAKE_COUNTED_WATTS", &watts)) return NOT_SUPPORTED;
  *millijoules = (unsigned long long)(1e3 * now() * watts);
  return device == &second ? SUCCESS : INVALID_ARGUMENT;
}
int nvmlDeviceGetPowerUsage(void* device, unsigned* milliwatts) { return device ? tell("FAKE_MILLIWATTS", milliwatts) : 1; }
int nvmlDeviceGetClockInfo(void* device, int kind, unsigned* mhz) {
  return device != NULL && kind == 1 ? tell("FAKE_SM_MHZ", mhz) : INVALID_ARGUMENT;
}
int nvmlDeviceGetMaxClockInfo(void* device, int kind, unsigned* mhz) {
  if (device == NULL) return INVALID_ARGUMENT;
  return tell(kind == 1 ? "FAKE_MAX_SM_MHZ" : kind == 2 ? "FAKE_MAX_MEMORY_MHZ" : "", mhz);
}
int nvmlDeviceGetTemperature(void* device, int sensor, unsigned* celsius) {
  return device != NULL && sensor == 0 ? tell("FAKE_CELSIUS", celsius) : INVALID_ARGUMENT;
}
int nvmlDeviceGetTemperatureThreshold(void* device, int threshold, unsigned* celsius) {
  return device != NULL && threshold == 1 ? tell("FAKE_CELSIUS_LIMIT", celsius) : INVALID_ARGUMENT;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void* device, unsigned long long* bits) {
  unsigned found;
  if (device == NULL || tell("FAKE_REASONS", &found)) return NOT_SUPPORTED;
  *bits = found;
  return SUCCESS;
}
int nvmlDeviceGetViolationStatus(void* device, int policy, unsigned long long* times) {
  unsigned percent;
  if (device == NULL || policy != 0 || tell("FAKE_POWER_PERCENT", &percent)) return NOT_SUPPORTED;
  times[0] = (unsigned long long)(1e6 * now());           /* reference, in microseconds */
  times[1] = (unsigned long long)(1e7 * now() * percent); /* held back, in nanoseconds */
  return SUCCESS;
}
int nvmlDeviceGetNumGpuCores(void* device, unsigned* cores) { return device ? tell("FAKE_CORES", cores) : INVALID_ARGUMENT; }
int nvmlDeviceGetMemoryBusWidth(void* device, unsigned* bits) { return device ? tell("FAKE_BUS", bits) : INVALID_ARGUMENT; }
