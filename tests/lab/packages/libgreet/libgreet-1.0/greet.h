#ifndef GREET_H
#define GREET_H

/* The greeting for a name, in a buffer of the library's own. */
const char *greet(const char *name);

#endif
