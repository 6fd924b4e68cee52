#include "tests/trace/nvtx_recorder.hpp"

#include <dlfcn.h>
#include <nvtx3/nvToolsExt.h>
#ifdef APRIME_HAS_NVTX_COUNTERS
#include <nvtx3/nvToolsExtCounters.h>
#endif
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>

// The part of NVTX by which a tool is asked in: nvtxDetail/nvtxTypes.h, nvtxDetail/nvtxExtTypes.h.

namespace aprime::test {
namespace {

using Text = std::array<char, 64>;

struct Domain {
  Text name{};
  std::atomic<int> open{0};
  std::array<Text, 16> categories{};
};
/// A registered string, or a counter.
struct Named {
  Domain* domain = nullptr;
  Text name{};
};

constexpr std::size_t kEventsMax = std::size_t{1} << 16;
std::array<TraceEvent, kEventsMax> events;
std::atomic<std::size_t> event_count{0};
std::array<Domain, 4> domains;
std::atomic<std::size_t> domain_count{0};
std::array<Named, 4096> strings;
std::atomic<std::size_t> string_count{0};
std::array<Named, 4096> counters;
std::atomic<std::size_t> counter_count{0};
std::atomic<int> initialization_count{0};
std::atomic<const char*> first_misuse{nullptr};

void blame(const char* what) noexcept {
  const char* none = nullptr;
  first_misuse.compare_exchange_strong(none, what);
}

Text text(const char* from) noexcept {
  Text to{};
  std::strncpy(to.data(), from, to.size() - 1);
  return to;
}

template <class Table>
auto* next_of(Table& table, std::atomic<std::size_t>& count) noexcept {
  const std::size_t i = count.fetch_add(1);
  if (i < table.size()) return &table[i];
  blame("more than the recorder can hold");
  return &table.back();
}

Domain* domain_of(nvtxDomainHandle_t handle) noexcept {
  auto* const domain = reinterpret_cast<Domain*>(handle);
  if (domain == nullptr) {
    blame("the default domain is used");
    return &domains.back();
  }
  if (domain->open.load() == 0) blame("a domain is used that was destroyed");
  return domain;
}

nvtxDomainHandle_t create_domain(const char* name) {
  const std::size_t count = domain_count.load();
  Domain* domain = std::find_if(domains.data(), domains.data() + count,
                                [&](const Domain& d) { return std::strcmp(d.name.data(), name) == 0; });
  if (domain == domains.data() + count) {
    domain = next_of(domains, domain_count);
    domain->name = text(name);
  }
  domain->open.fetch_add(1);
  return reinterpret_cast<nvtxDomainHandle_t>(domain);
}

void destroy_domain(nvtxDomainHandle_t handle) {
  Domain* const domain = domain_of(handle);
  // One domain for all of that name, so that its end is the end for all.
  domain->open.store(0);
}

void name_category(nvtxDomainHandle_t handle, std::uint32_t category, const char* name) {
  Domain* const domain = domain_of(handle);
  if (category == 0 || category >= domain->categories.size())
    blame("a category has a number that is not for use");
  else
    domain->categories[category] = text(name);
}

nvtxStringHandle_t register_string(nvtxDomainHandle_t handle, const char* string) {
  Named* const named = next_of(strings, string_count);
  *named = {domain_of(handle), text(string)};
  return reinterpret_cast<nvtxStringHandle_t>(named);
}

TraceEvent& record(TraceEvent::What what) noexcept {
  TraceEvent& event = *next_of(events, event_count);
  event = {};
  event.what = what;
  event.thread = ::gettid();
  return event;
}

int push(nvtxDomainHandle_t handle, const nvtxEventAttributes_t* attributes) {
  Domain* const domain = domain_of(handle);
  TraceEvent& event = record(TraceEvent::What::push);
  if (attributes->version != NVTX_VERSION || attributes->size != NVTX_EVENT_ATTRIB_STRUCT_SIZE)
    blame("attributes of another version of NVTX");
  if (attributes->messageType == NVTX_MESSAGE_TYPE_REGISTERED) {
    const auto* const named = reinterpret_cast<const Named*>(attributes->message.registered);
    if (named->domain != domain) blame("a string of another domain");
    event.name = named->name;
  } else if (attributes->messageType == NVTX_MESSAGE_TYPE_ASCII) {
    event.name = text(attributes->message.ascii);
  } else {
    blame("a range has no name");
  }
  if (attributes->category < domain->categories.size())
    event.category = domain->categories[attributes->category];
  event.has_payload = attributes->payloadType == NVTX_PAYLOAD_TYPE_UNSIGNED_INT64;
  event.value = event.has_payload ? attributes->payload.ullValue : 0;
  return 0;
}

int pop(nvtxDomainHandle_t handle) {
  domain_of(handle);
  record(TraceEvent::What::pop);
  return 0;
}

/// Puts `function` where the program's calls of that name go.
template <class Function>
void hook(NvtxFunctionTable table, unsigned size, unsigned id, Function* function) noexcept {
  if (id < size) *table[id] = reinterpret_cast<NvtxFunctionPointer>(function);
}

#ifdef APRIME_HAS_NVTX_COUNTERS

std::uint64_t register_counter(nvtxDomainHandle_t handle, const nvtxCounterAttr_t* attributes) {
  if (attributes->structSize != sizeof(nvtxCounterAttr_t)) blame("counter attributes of another size");
  if (attributes->schemaId != NVTX_PAYLOAD_ENTRY_TYPE_INT64) blame("a counter is sampled as another type");
  Named* const counter = next_of(counters, counter_count);
  *counter = {domain_of(handle), text(attributes->name)};
  return NVTX_COUNTER_ID_DYNAMIC_START + static_cast<std::uint64_t>(counter - counters.data());
}

void sample(nvtxDomainHandle_t handle, std::uint64_t id, std::int64_t value) {
  const std::uint64_t index = id - NVTX_COUNTER_ID_DYNAMIC_START;
  if (index >= counter_count.load()) return blame("a counter is sampled that was not registered");
  if (counters[index].domain != domain_of(handle)) blame("a counter of another domain");
  TraceEvent& event = record(TraceEvent::What::sample);
  event.name = counters[index].name;
  event.value = static_cast<std::uint64_t>(value);
}

#endif

}  // namespace

std::string TraceRecorder::path() {
  Dl_info info{};
  return ::dladdr(reinterpret_cast<const void*>(&TraceRecorder::path), &info) != 0 ? info.dli_fname : "";
}
int TraceRecorder::initializations() { return initialization_count.load(); }
bool TraceRecorder::can_count() {
#ifdef APRIME_HAS_NVTX_COUNTERS
  return true;
#else
  return false;
#endif
}
std::span<const TraceEvent> TraceRecorder::events() {
  return {test::events.data(), std::min(event_count.load(), kEventsMax)};
}
std::string TraceRecorder::misuse() {
  const char* const what = first_misuse.load();
  return what == nullptr ? "" : what;
}
int TraceRecorder::open_domains(const std::string& name) {
  int open = 0;
  for (const Domain& domain : domains)
    if (name == domain.name.data()) open += domain.open.load();
  return open;
}
void TraceRecorder::clear() {
  event_count.store(0);
  first_misuse.store(nullptr);
}

}  // namespace aprime::test

using namespace aprime::test;  // NOLINT: what follows is the library's entry, C by nature

extern "C" [[gnu::visibility("default")]] int InitializeInjectionNvtx2(
    NvtxGetExportTableFunc_t export_table) {
  const auto* const callbacks =
      static_cast<const NvtxExportTableCallbacks*>(export_table(NVTX_ETID_CALLBACKS));
  NvtxFunctionTable table = nullptr;
  unsigned size = 0;
  if (callbacks == nullptr || callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size) == 0)
    return 0;
  hook(table, size, NVTX_CBID_CORE2_DomainCreateA, &create_domain);
  hook(table, size, NVTX_CBID_CORE2_DomainDestroy, &destroy_domain);
  hook(table, size, NVTX_CBID_CORE2_DomainNameCategoryA, &name_category);
  hook(table, size, NVTX_CBID_CORE2_DomainRegisterStringA, &register_string);
  hook(table, size, NVTX_CBID_CORE2_DomainRangePushEx, &push);
  hook(table, size, NVTX_CBID_CORE2_DomainRangePop, &pop);
  initialization_count.fetch_add(1);
  return 1;
}

#ifdef APRIME_HAS_NVTX_COUNTERS
extern "C" [[gnu::visibility("default")]] int InitializeInjectionNvtxExtension(nvtxExtModuleInfo_t* module) {
  if (module->moduleId != NVTX_EXT_COUNTERS_MODULEID || module->segmentsCount == 0) return 0;
  std::intptr_t* const slots = module->segments[0].functionSlots;
  slots[NVTX3EXT_CBID_nvtxCounterRegister] = reinterpret_cast<std::intptr_t>(&register_counter);
  slots[NVTX3EXT_CBID_nvtxCounterSampleInt64] = reinterpret_cast<std::intptr_t>(&sample);
  initialization_count.fetch_add(1);
  return 1;
}
#endif
