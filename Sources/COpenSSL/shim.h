// OpenSSL, from the distribution (libssl-dev): it is the one cryptographic library of the process, kept patched by the system.
#include <openssl/evp.h>
