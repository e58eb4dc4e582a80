/* The C floor: what a hand-written C extension needs for the same work as framecodec's plain shape, a
 * 4-byte big-endian length in front of each message.
 *
 * It uses the public CPython API, as a careful C programmer would, and does nothing that is not needed:
 * no other shape, no bounded growth of a large message, no error that can be acted upon, no second call
 * refused. What it must do as well: take any chunking, any bytes-like object, and check the limit.
 *
 *   Splitter(limit).feed(data) -> list of bytes
 *   encode(message) -> bytes
 *   encode_many(list) -> bytes, in one allocation
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define HEADER 4

typedef struct {
    PyObject_HEAD
    size_t limit;
    unsigned char header[HEADER];
    Py_ssize_t header_size; /* of the pending frame: header bytes that are here */
    PyObject *message;      /* the pending message in its final object, or NULL */
    Py_ssize_t filled;      /* of it */
} Splitter;

static inline size_t load(const unsigned char *p)
{
    return (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
}

static inline void store(unsigned char *p, size_t size)
{
    p[0] = (unsigned char)(size >> 24);
    p[1] = (unsigned char)(size >> 16);
    p[2] = (unsigned char)(size >> 8);
    p[3] = (unsigned char)size;
}

static int too_large(size_t size, size_t limit)
{
    PyErr_Format(PyExc_ValueError, "a message of %zu bytes is above the limit of %zu", size, limit);
    return -1;
}

/* Appends to the list and gives up the caller's reference. */
static inline int append(PyObject *messages, PyObject *message)
{
    int failed = PyList_Append(messages, message);
    Py_DECREF(message);
    return failed;
}

/* Goes on with the frame that an earlier chunk began; gives the bytes taken, or -1. */
static Py_ssize_t finish_pending(Splitter *self, const unsigned char *p, Py_ssize_t size,
                                 PyObject *messages)
{
    Py_ssize_t taken = 0, n;
    if (self->message == NULL) {
        n = HEADER - self->header_size;
        if (n > size)
            n = size;
        memcpy(self->header + self->header_size, p, n);
        self->header_size += n;
        taken = n;
        if (self->header_size < HEADER)
            return taken;
        size_t declared = load(self->header);
        if (declared > self->limit)
            return too_large(declared, self->limit);
        self->message = PyBytes_FromStringAndSize(NULL, declared);
        if (self->message == NULL)
            return -1;
        self->filled = 0;
    }
    n = PyBytes_GET_SIZE(self->message) - self->filled;
    if (n > size - taken)
        n = size - taken;
    memcpy(PyBytes_AS_STRING(self->message) + self->filled, p + taken, n);
    self->filled += n;
    taken += n;
    if (self->filled == PyBytes_GET_SIZE(self->message)) {
        PyObject *message = self->message;
        self->message = NULL;
        self->header_size = 0;
        if (append(messages, message) < 0)
            return -1;
    }
    return taken;
}

static int take(Splitter *self, const unsigned char *p, Py_ssize_t size, PyObject *messages)
{
    const unsigned char *end = p + size;
    while (p < end) {
        if (self->header_size == 0) { /* between two frames */
            while (end - p >= HEADER) {
                size_t declared = load(p);
                if (declared > self->limit)
                    return too_large(declared, self->limit);
                if ((size_t)(end - p - HEADER) < declared)
                    break;
                PyObject *message = PyBytes_FromStringAndSize((const char *)p + HEADER, declared);
                if (message == NULL || append(messages, message) < 0)
                    return -1;
                p += HEADER + declared;
            }
            if (p == end)
                break;
        }
        Py_ssize_t taken = finish_pending(self, p, end - p, messages);
        if (taken < 0)
            return -1;
        p += taken;
    }
    return 0;
}

static PyObject *splitter_feed(Splitter *self, PyObject *data)
{
    int failed;
    PyObject *messages = PyList_New(0);
    if (messages == NULL)
        return NULL;
    if (PyBytes_CheckExact(data)) {
        failed = take(self, (const unsigned char *)PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data),
                      messages);
    } else {
        Py_buffer view;
        failed = PyObject_GetBuffer(data, &view, PyBUF_SIMPLE);
        if (!failed) {
            failed = take(self, view.buf, view.len, messages);
            PyBuffer_Release(&view);
        }
    }
    if (failed)
        Py_CLEAR(messages);
    return messages;
}

static PyObject *splitter_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    Py_ssize_t limit = 16 * 1024 * 1024;
    static char *names[] = {"limit", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|n", names, &limit))
        return NULL;
    Splitter *self = (Splitter *)type->tp_alloc(type, 0);
    if (self != NULL)
        self->limit = (size_t)limit;
    return (PyObject *)self;
}

static void splitter_dealloc(Splitter *self)
{
    Py_XDECREF(self->message);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMethodDef splitter_methods[] = {
    {"feed", (PyCFunction)splitter_feed, METH_O, "Takes a chunk; returns the messages completed."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject splitter_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "_floor.Splitter",
    .tp_basicsize = sizeof(Splitter),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "One connection's receiving state.",
    .tp_new = splitter_new,
    .tp_dealloc = (destructor)splitter_dealloc,
    .tp_methods = splitter_methods,
};

#define LARGEST ((Py_ssize_t)16 * 1024 * 1024)

static PyObject *floor_encode(PyObject *module, PyObject *message)
{
    PyObject *frame;
    if (PyBytes_CheckExact(message)) {
        Py_ssize_t size = PyBytes_GET_SIZE(message);
        if (size > LARGEST) {
            too_large(size, LARGEST);
            return NULL;
        }
        frame = PyBytes_FromStringAndSize(NULL, HEADER + size);
        if (frame == NULL)
            return NULL;
        store((unsigned char *)PyBytes_AS_STRING(frame), size);
        memcpy(PyBytes_AS_STRING(frame) + HEADER, PyBytes_AS_STRING(message), size);
        return frame;
    }
    message = PyBytes_FromObject(message);
    if (message == NULL)
        return NULL;
    frame = floor_encode(module, message);
    Py_DECREF(message);
    return frame;
}

static PyObject *floor_encode_many(PyObject *module, PyObject *messages)
{
    Py_ssize_t count, total = 0;
    if (!PyList_CheckExact(messages)) {
        PyErr_SetString(PyExc_TypeError, "the floor takes a list");
        return NULL;
    }
    count = PyList_GET_SIZE(messages);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *message = PyList_GET_ITEM(messages, i);
        if (!PyBytes_CheckExact(message)) {
            PyErr_SetString(PyExc_TypeError, "the floor takes a list of bytes");
            return NULL;
        }
        if (PyBytes_GET_SIZE(message) > LARGEST) {
            too_large(PyBytes_GET_SIZE(message), LARGEST);
            return NULL;
        }
        total += HEADER + PyBytes_GET_SIZE(message);
    }
    PyObject *frames = PyBytes_FromStringAndSize(NULL, total);
    if (frames == NULL)
        return NULL;
    unsigned char *p = (unsigned char *)PyBytes_AS_STRING(frames);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *message = PyList_GET_ITEM(messages, i);
        Py_ssize_t size = PyBytes_GET_SIZE(message);
        store(p, size);
        memcpy(p + HEADER, PyBytes_AS_STRING(message), size);
        p += HEADER + size;
    }
    return frames;
}

static PyMethodDef functions[] = {
    {"encode", floor_encode, METH_O, "One frame."},
    {"encode_many", floor_encode_many, METH_O, "The frames of a list of bytes."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_floor",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__floor(void)
{
    PyObject *made = PyModule_Create(&module);
    if (made != NULL && PyModule_AddType(made, &splitter_type) < 0)
        Py_CLEAR(made);
    return made;
}
