// How many instructions a piece of work takes, by number and not by time.
#ifndef GRAFT_INSTRUCTION_COUNT_H
#define GRAFT_INSTRUCTION_COUNT_H

// Instructions that `body(context)` executes in a copy of this process, one step at a time; a constant number of the copy's own are among them.
// The copy has the calling thread only, so `body` must not wait for another. Its effects are lost. -1: the system does not let processes be traced.
long graft_test_instruction_count(void (*body)(void *), void *context);

#endif
