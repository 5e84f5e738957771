// Runs a kernel's blocks one after the other, the threads of a block as fibers that change at barriers.
#pragma once
#undef _FORTIFY_SOURCE
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <vector>
#include <sys/mman.h>
#include <ucontext.h>

// As in include/cuda_runtime.h.
struct Index { unsigned x, y, z; };
struct Block { Index thread, block, threads, blocks; };
struct Services { void (*wait_block)(); void (*wait_warp)(); unsigned (*lanes)(); };
struct Entry { void (*call)(void** parameters); unsigned count; unsigned sizes[64]; };

class Fibers {
  static constexpr size_t STACK = 256 << 10, GUARD = 4096;
  enum class State { Idle, Running, AtBlock, AtWarp };
  struct Fiber { ucontext_t context; jmp_buf at; bool begun = false; unsigned thread = 0; State state = State::Idle; };

  std::vector<std::unique_ptr<Fiber>> all;
  std::vector<Fiber*> idle;
  std::deque<Fiber*> ready;
  std::vector<Fiber*> waiting;  // by thread
  std::vector<unsigned> alive, arrived;  // by warp: bits
  unsigned threads = 0, next = 0, left = 0, at_block = 0;
  Fiber* current = nullptr;
  jmp_buf scheduler;
  Block* block = nullptr;
  const Entry* entry = nullptr;
  void** parameters = nullptr;

  static Fibers*& own() { static Fibers* one = nullptr; return one; }

  void place(unsigned thread) {
    Index of = block->threads;
    block->thread = {thread % of.x, thread / of.x % of.y, thread / of.x / of.y};
  }

  // A fiber takes threads that have not begun until one of them waits.
  static void run() {
    Fibers& f = *own();
    for (;;) {
      while (f.next < f.threads) {
        unsigned thread = f.current->thread = f.next++;
        f.place(thread);
        f.entry->call(f.parameters);
        f.finish(f.current->thread);
      }
      f.current->state = State::Idle;
      f.idle.push_back(f.current);
      f.leave();
    }
  }

  void finish(unsigned thread) {
    left--;
    alive[thread / 32] &= ~(1u << thread % 32);
    release_block();
    release_warp(thread / 32);
  }

  void leave() { if (_setjmp(current->at) == 0) _longjmp(scheduler, 1); }

  void resume(Fiber* fiber) {
    current = fiber;
    fiber->state = State::Running;
    if (_setjmp(scheduler) != 0) return;
    if (fiber->begun) { place(fiber->thread); _longjmp(fiber->at, 1); }
    fiber->begun = true;
    setcontext(&fiber->context);
    std::abort();
  }

  void release_block() {
    if (at_block == 0 || at_block < left) return;
    at_block = 0;
    for (Fiber* fiber : waiting) if (fiber && fiber->state == State::AtBlock) wake(fiber);
  }

  void release_warp(unsigned warp) {
    if (arrived[warp] == 0 || arrived[warp] != alive[warp]) return;
    unsigned bits = arrived[warp];
    arrived[warp] = 0;
    for (unsigned lane = 0; lane < 32; lane++) if (bits >> lane & 1) wake(waiting[warp * 32 + lane]);
  }

  void wake(Fiber* fiber) {
    waiting[fiber->thread] = nullptr;
    fiber->state = State::Running;
    ready.push_back(fiber);
  }

  static void wait(State state) {
    Fibers& f = *own();
    unsigned thread = f.current->thread;
    f.current->state = state;
    f.waiting[thread] = f.current;
    if (state == State::AtBlock) { f.at_block++; f.release_block(); }
    else { f.arrived[thread / 32] |= 1u << thread % 32; f.release_warp(thread / 32); }
    f.leave();
  }
  static void wait_block() { wait(State::AtBlock); }
  static void wait_warp() { wait(State::AtWarp); }
  // A thread that has not begun is alive too.
  static unsigned lanes() { Fibers& f = *own(); return f.alive[f.current->thread / 32]; }

  Fiber* fresh() {
    if (!idle.empty()) { Fiber* fiber = idle.back(); idle.pop_back(); return fiber; }
    all.push_back(std::make_unique<Fiber>());
    Fiber* fiber = all.back().get();
    char* stack = static_cast<char*>(mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (stack == MAP_FAILED || mprotect(stack, GUARD, PROT_NONE) != 0) { std::perror("stub: a fiber's stack"); std::abort(); }
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = stack;
    fiber->context.uc_stack.ss_size = STACK;
    makecontext(&fiber->context, run, 0);
    return fiber;
  }

  bool one_block() {
    next = 0; left = threads; at_block = 0;
    unsigned warps = (threads + 31) / 32;
    alive.assign(warps, ~0u);
    if (threads % 32) alive.back() = (1u << threads % 32) - 1;
    arrived.assign(warps, 0);
    waiting.assign(warps * 32, nullptr);
    while (left > 0) {
      if (next < threads) resume(fresh());
      else if (!ready.empty()) { Fiber* fiber = ready.front(); ready.pop_front(); resume(fiber); }
      else return false;
    }
    return true;
  }

 public:
  static const Services& services() { static const Services s = {wait_block, wait_warp, lanes}; return s; }

  // False if threads of a block wait for each other forever. Nothing can be run after that.
  bool launch(const Entry& what, Block& where, Index blocks, Index size, void** values) {
    own() = this;
    entry = &what; block = &where; parameters = values;
    threads = size.x * size.y * size.z;
    block->threads = size;
    block->blocks = blocks;
    for (unsigned z = 0; z < blocks.z; z++)
      for (unsigned y = 0; y < blocks.y; y++)
        for (unsigned x = 0; x < blocks.x; x++) {
          block->block = {x, y, z};
          if (!one_block()) return false;
        }
    return true;
  }
};
