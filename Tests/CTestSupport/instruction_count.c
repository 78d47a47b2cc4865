#define _GNU_SOURCE
#include "instruction_count.h"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

long graft_test_instruction_count(void (*body)(void *), void *context) {
    const pid_t child = fork();
    if (child < 0) return -1;
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, 0, 0) != 0) _exit(1);
        raise(SIGSTOP);
        body(context);
        _exit(0);
    }
    int status = 0;
    if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) return -1;
    long steps = 0;
    while (ptrace(PTRACE_SINGLESTEP, child, 0, 0) == 0) {
        if (waitpid(child, &status, 0) != child) return -1;
        if (WIFEXITED(status)) return WEXITSTATUS(status) == 0 ? steps : -1;
        if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP) break;
        steps++;
    }
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    return -1;
}
