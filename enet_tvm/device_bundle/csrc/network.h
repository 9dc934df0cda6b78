/* A compiled network on this machine: loaded, given pictures, and asked for what it sees. Whatever fails ends the program. */
#ifndef ENET_TVM_NETWORK_H
#define ENET_TVM_NETWORK_H

#include "manifest.h"
#include "tvm_call.h"

typedef struct {
  TVMFFIObjectHandle main, sync;
  TVMFFIObjectHandle frame; /* the whole network as one graph of a GPU, into an output that stays; NULL without one */
  TVMFFIAny input, output, result, device;
  const Manifest* manifest;
} Network;

/* Load what the manifest's device needs, and refuse device code that this machine's GPU cannot run. */
void check_device(const Manifest* manifest, const char* artifact);

/* Load a network whose manifest was read and whose device was checked. */
void load_network(Network* network, const Manifest* manifest);

/* Copy an input, of the manifest's shape, to where the network reads it. */
void give_input(Network* network, const float* values);

/* Compute one pass; return its milliseconds. */
double compute(Network* network);

/* Copy the last pass's output, manifest->output_bytes, after checking that it is what the manifest says. */
void take_output(Network* network, void* results);

/* The threads that it computes with. */
long long threads_of_pool(void);

#endif
