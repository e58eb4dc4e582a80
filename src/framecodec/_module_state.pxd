# cython: language_level=3
"""The state of a compiled module, one in each interpreter, found without a search.

With ``CYTHON_USE_MODULE_STATE``, which sub-interpreters need, Cython's code searches a table for
the state of the running interpreter wherever it uses a name, a constant or a type. The table counts
its readers in one number, so that threads without the GIL would wait for each other there.

A module that one interpreter has loaded, as almost all are, has one state. Its address is kept
here, until another interpreter begins to load the module; from then on, the table is searched.

Besides, every compiled module needs from here that an exception which CPython 3.11 loses for lack
of memory is a MemoryError.
"""

cdef extern from *:
    """
    #if CYTHON_COMPILING_IN_CPYTHON && PY_VERSION_HEX < 0x030C0000
    /* CPython 3.11 drops the exception that a function of Python raises where there is no memory
       for the frame object of its traceback: the call fails, and no exception is set. Cython's code
       adds its own line to the traceback then, and a `finally` or `except` after it crashes because
       there is a traceback without an exception. */
    static int framecodec_add_to_traceback(PyFrameObject *frame)
    {
        if (PyErr_Occurred() == NULL)
            PyErr_NoMemory();
        return PyTraceBack_Here(frame);
    }
    #define PyTraceBack_Here(frame) framecodec_add_to_traceback(frame)
    #endif
    """

cdef extern from *:
    """
    #if CYTHON_USE_MODULE_STATE && CYTHON_PEP489_MULTI_PHASE_INIT
    #include <stdint.h>

    /* The address of the only state, or one of these. It changes from the first to the last. */
    #define FRAMECODEC_NO_STATE NULL
    #define FRAMECODEC_UNFINISHED_STATE ((void *)1) /* the module's body runs for the first time */
    #define FRAMECODEC_SEVERAL_STATES ((void *)2)
    static void *framecodec_only_state;

    #if defined(_MSC_VER) && !defined(__clang__)
    #include <intrin.h>
    #define framecodec_load_only_state() (*(void *const volatile *)&framecodec_only_state)
    #define framecodec_change_only_state(from, to) \\
        _InterlockedCompareExchangePointer(&framecodec_only_state, (to), (from))
    #else
    #define framecodec_load_only_state() __atomic_load_n(&framecodec_only_state, __ATOMIC_RELAXED)
    static void *framecodec_change_only_state(void *from, void *to)
    {
        __atomic_compare_exchange_n(
            &framecodec_only_state, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
        return from;
    }
    #endif

    static void framecodec_begin_to_load(void)
    {
        void *found = framecodec_change_only_state(
            FRAMECODEC_NO_STATE, FRAMECODEC_UNFINISHED_STATE);
        while (found != FRAMECODEC_NO_STATE && found != FRAMECODEC_SEVERAL_STATES) {
            void *expected = found;
            found = framecodec_change_only_state(expected, FRAMECODEC_SEVERAL_STATES);
            if (found == expected)
                break;
        }
    }

    /* The first thing that an interpreter calls of a module. */
    #define PyModuleDef_Init(definition) (framecodec_begin_to_load(), PyModuleDef_Init(definition))

    static PyObject *__Pyx_State_FindModule(void *);
    static CYTHON_INLINE void *framecodec_running_state(void)
    {
        void *state = framecodec_load_only_state();
        if ((uintptr_t)state > (uintptr_t)FRAMECODEC_SEVERAL_STATES)
            return state;
        return __Pyx__PyModule_GetState(__Pyx_State_FindModule(NULL));
    }

    /* Cython gives this macro the search, where it needs the state of the running interpreter, or a
       variable, where it has the module. The search is told by the size of its text; a text that
       this file does not know is taken for a module, which is never wrong. */
    #undef __Pyx_PyModule_GetState
    #define __Pyx_PyModule_GetState(module) ((__pyx_mstatetype *)( \\
        sizeof(#module) == sizeof("__Pyx_State_FindModule(&__pyx_moduledef)") \\
        ? framecodec_running_state() : __Pyx__PyModule_GetState(module)))

    #define framecodec_remember_state() ((void)framecodec_change_only_state( \\
        FRAMECODEC_UNFINISHED_STATE, __Pyx__PyModule_GetState(__Pyx_State_FindModule(NULL))))
    #else
    #define framecodec_remember_state() ((void)0)
    #endif
    """
    # The last statement of a module's body.
    void remember_module_state "framecodec_remember_state" () noexcept
