// What all libraries of the stub share: the record of calls, and calls that are made to fail.
#pragma once
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <unistd.h>

// A line of the record: the file that CUDA_STUB_LOG names. One write each, so that libraries and threads may share the file.
__attribute__((format(printf, 1, 2))) static void record(const char* format, ...) {
  static int file = [] {
    const char* path = std::getenv("CUDA_STUB_LOG");
    return path ? ::open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
  }();
  if (file < 0) return;
  char line[512];
  va_list values;
  va_start(values, format);
  int length = std::vsnprintf(line, sizeof line - 1, format, values);
  va_end(values);
  if (length > (int)sizeof line - 2) length = sizeof line - 2;
  line[length++] = '\n';
  if (::write(file, line, length) != length) std::abort();
}

// Whether this call is one that CUDA_STUB_FAIL names: "NAME:N" is the Nth call of a function (from 1), "NAME:N+" that and all
// later ones. Calls of kernels and plans may name these, as in "cuLaunchKernel/norm_merge:1".
static bool must_fail(const char* name) {
  static const char* wanted = std::getenv("CUDA_STUB_FAIL");
  if (!wanted) return false;
  const char* colon = std::strrchr(wanted, ':');
  if (!colon || std::strncmp(wanted, name, colon - wanted) != 0 || name[colon - wanted] != 0) return false;
  static long seen = 0;
  char* rest = nullptr;
  long first = std::strtol(colon + 1, &rest, 10), now = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
  bool fails = *rest == '+' ? now >= first : now == first;
  if (fails) record("! %s fails, as CUDA_STUB_FAIL says", name);
  return fails;
}
