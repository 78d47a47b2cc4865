// Compiled here because the distribution packages llhttp as sources only. Our header must come first: the source file asks for
// strict mode in its first line, before it includes anything, and would silently be the lenient parser.
#include "llhttp.h"
#include "/usr/share/llhttp/http.c"
