// OpenSSL, from the distribution (libssl-dev): it is the one cryptographic library of the process, kept patched by the system.
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

// Swift imports neither macros with arguments nor those that hide a call. Each of these is such a macro as a function.

// The protocol versions and options of every context, client's or server's; returns 1 when the library knows them.
static inline int graft_ssl_restrict(SSL_CTX *context) {
    // No compression (CRIME), no renegotiation, no state in tickets: a session lives in the server's cache, so that no key of tickets can open old
    // connections. The server's order of ciphers counts, but a client without AES instructions gets ChaCha20.
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE
                                     | SSL_OP_PRIORITIZE_CHACHA);
    // Idle connections give their buffers back; a write may be repeated from another address.
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    // Keys and digests of 112 bits of security at least, whatever the system's configuration says, or more if it does.
    if (SSL_CTX_get_security_level(context) < 2) SSL_CTX_set_security_level(context, 2);
    return SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) && SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION);
}

static inline void graft_ssl_cache_sessions(SSL_CTX *context, long count, long seconds) {
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_SERVER);
    SSL_CTX_sess_set_cache_size(context, count);
    SSL_CTX_set_timeout(context, seconds);
}

static inline int graft_ssl_add_chain(SSL_CTX *context, X509 *certificate) { return SSL_CTX_add1_chain_cert(context, certificate) == 1; }

static inline int graft_ssl_set_server_name(SSL *ssl, const char *name) { return SSL_set_tlsext_host_name(ssl, name) == 1; }

// The bytes that wait in a memory BIO, without a copy.
static inline size_t graft_bio_contents(BIO *bio, const unsigned char **start) {
    char *data = NULL;
    long count = BIO_get_mem_data(bio, &data);
    *start = (const unsigned char *)data;
    return count > 0 ? (size_t)count : 0;
}

static inline void graft_bio_clear(BIO *bio) { (void)BIO_reset(bio); }

// An empty memory BIO says "not yet" and not "the end".
static inline void graft_bio_never_ends(BIO *bio) { BIO_set_mem_eof_return(bio, -1); }

// The reason of a packed error code: what `ERR_GET_REASON` gives.
static inline int graft_error_reason(unsigned long code) { return ERR_GET_REASON(code); }
static inline int graft_error_library(unsigned long code) { return ERR_GET_LIB(code); }

// The subject on one line as RFC 2253 has it, everything but printable ASCII escaped; 1 when that worked.
static inline int graft_print_subject(BIO *bio, const X509 *certificate) {
    return X509_NAME_print_ex(bio, X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253) >= 0;
}
