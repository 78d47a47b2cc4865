// llhttp is the HTTP/1 parser below the server. Debian's node-llhttp ships its generated C as source files, without a library.
// Strict mode is switched on here, in the header, because a define of the build settings would be invisible to Swift and to
// one of the two worlds the struct layouts and checks would differ. Outside strict mode a bare CR ends a line (CVE-2023-30589).
#ifndef GRAFT_CLLHTTP_H
#define GRAFT_CLLHTTP_H

#define LLHTTP_STRICT_MODE 1
#include "/usr/share/include/llhttp/llhttp.h"

#endif
