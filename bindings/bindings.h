// What the binding sources share.
#ifndef NETSUKE_BINDINGS_BINDINGS_H_
#define NETSUKE_BINDINGS_BINDINGS_H_

#include <nanobind/nanobind.h>

#include "base/status.h"

void netsuke_check(const netsuke::Status& status);  // raises netsuke._runtime.Error unless ok
void bind_training(nanobind::module_& m);

#endif  // NETSUKE_BINDINGS_BINDINGS_H_
