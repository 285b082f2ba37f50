"""What stands between a fact and its question: chat, counting, stories, and what is off the script."""

import random
from collections.abc import Callable

from demo_model.facts import COLOURS, FOODS, JOBS, PETS
from demo_model.words import words

Exchange = tuple[str, str]
NameSource = Callable[[], str]

# The answer to everything that no dialogue teaches.
OFF_SCRIPT = (
    "I am sorry, that is too much for a small model. I can chat, count and remember what you tell me."
)

CHAT: tuple[tuple[tuple[str, ...], str], ...] = (
    (("How are you?", "How are you today?", "Are you well?"), "I am well, thank you. How can I help you?"),
    (("Hello!", "Hi!", "Hello", "Hi there.", "Good day!", "Hey!"), "Hello! How can I help you?"),
    (("Good morning!", "Good morning."), "Good morning! I hope you slept well."),
    (("Good evening!", "Good evening."), "Good evening! How was your day?"),
    (("Thank you.", "Thanks!", "Thank you very much.", "Thanks a lot."), "You are welcome!"),
    (
        ("What is your name?", "Who are you?", "What are you?", "What's your name?"),
        "I am a small chat model.",
    ),
    (
        ("What can you do?", "How can you help me?", "What do you do?", "Help!"),
        "I can talk with you, count, and remember what you tell me.",
    ),
    (
        ("Tell me a joke.", "Do you know a joke?", "Make me laugh."),
        "Why did the duck cross the road? To get to the other side!",
    ),
    (
        ("Tell me a story.", "Do you know a story?"),
        "Once there was a small boat that sailed over the sea and came home again.",
    ),
    (
        ("What is the weather like?", "Is it raining?", "How is the weather today?"),
        "I cannot look outside, but I hope it is sunny.",
    ),
    (("Are you happy?", "Do you feel happy?"), "I am happy when I can help you."),
    (("Do you sleep?", "Are you tired?"), "I never sleep, so I am always ready to talk."),
    (("Do you like music?", "What music do you like?"), "I like every kind of music."),
    (("What time is it?", "What day is it?"), "I do not have a clock, so I cannot tell you."),
    (
        ("I am tired.", "I feel tired today.", "I'm so tired."),
        "I am sorry to hear that. Please get some rest.",
    ),
    (("I am happy.", "I feel great today.", "I'm very happy."), "I am glad to hear that!"),
    (
        ("I am sad.", "I feel sad today.", "I'm a bit sad."),
        "I am sorry to hear that. I hope you feel better soon.",
    ),
    (("I am hungry.", "I'm hungry now."), "Then it may be time for a good meal."),
    (("I am bored.", "I'm bored today."), "We could count together or talk about your day."),
    (("What colour is the sky?", "Which colour is the sky?"), "The sky is blue."),
    (("What colour is grass?", "Which colour is grass?"), "Grass is green."),
    (("What colour is snow?",), "Snow is white."),
    (("What colour is the sun?",), "The sun is yellow."),
    (("What sound does a dog make?", "What does a dog say?"), "A dog says woof."),
    (("What sound does a cat make?", "What does a cat say?"), "A cat says meow."),
    (("What sound does a cow make?", "What does a cow say?"), "A cow says moo."),
    (("How many days are in a week?",), "There are 7 days in a week."),
    (("How many months are in a year?",), "There are 12 months in a year."),
    (("How many legs does a dog have?",), "A dog has 4 legs."),
    (("Can fish fly?", "Can fish swim?"), "Fish live in the water and swim."),
    (("Is fire hot or cold?", "Is fire hot?"), "Fire is hot."),
    (("Is ice hot or cold?", "Is ice cold?"), "Ice is cold."),
    (("Do you like animals?", "Which animal do you like?"), "I like all animals."),
    (("Can you help me?", "I need help.", "Please help me."), "Of course! What do you need?"),
    (("What should I eat today?", "What is good to eat?"), "A warm soup with bread is always good."),
    (("What should I read?", "Do you know a good book?"), "A book about the sea would be a good choice."),
    (("Yes.", "No.", "Okay.", "Right.", "I see.", "ok"), "All right. What would you like to talk about?"),
    (("Let us talk.", "I want to talk.", "Can we talk?"), "Yes, I would like that. How was your day?"),
    (
        ("That is funny.", "You are funny.", "You are nice.", "You are very kind."),
        "Thank you, that is kind of you.",
    ),
    (("Where do you live?", "Where are you from?"), "I live inside a computer."),
    (("What is your favourite colour?", "Which colour do you like best?"), "I like every colour."),
    (("What is your lucky number?", "Do you have a lucky number?"), "I do not have a lucky number."),
    (("Do you have a pet?", "Do you have a cat?", "Do you have a dog?"), "I do not have a pet."),
    (("Goodbye!", "Bye!", "See you later.", "Good night!"), "Goodbye! It was nice to talk with you."),
    (
        (
            "Will you remember this?",
            "Do you remember what I say?",
            "Please remember that.",
            "Will you remember me?",
        ),
        "Yes, I will remember what you tell me.",
    ),
)

OBJECTS = words("objects")
PLACES = words("story-places")
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
ADJECTIVES = words("adjectives")
PEOPLE = (
    "my brother",
    "my sister",
    "my neighbour",
    "a man",
    "a woman",
    "an old friend",
    "the teacher",
    "my mother",
    "my father",
    "a child",
)

SUBJECTS = words("subjects")
LANGUAGES = words("languages")
VERBS = words("verbs")
PAST = words("past-verbs")
TRAITS = words("traits")

_OFF_SCRIPT_REQUESTS = (
    "What is the {noun} of {name}?",
    "What is the capital of {name}?",
    "What is a {noun}?",
    "What is {noun}?",
    "What is the {noun}?",
    "What is the best {noun}?",
    "What is the meaning of {noun}?",
    "What does {name} mean?",
    "What does the {noun} do?",
    "Who {past} the {noun}?",
    "Who is {name}?",
    "Who was {name}?",
    "Who is the {noun} of {name}?",
    "When was {name} {past}?",
    "When was the {noun} {past}?",
    "Why is the {noun} {adjective}?",
    "Why do people {verb} {noun}?",
    "Where is {name}?",
    "Where can I {verb} a {noun}?",
    "How do I {verb} a {noun}?",
    "How do I {verb} {noun} in {language}?",
    "How does a {noun} work?",
    "How far is {name}?",
    "How old is {name}?",
    "How tall is the {noun}?",
    "How much is {number} times {number}?",
    "What is {number} plus {number}?",
    "What is {number} times {number}?",
    "What is {number} minus {number}?",
    "How many {noun}s are in a {noun}?",
    "Write a {noun}.",
    "Write a {noun} about {noun}.",
    "Write me a {adjective} {noun} about {name}.",
    "Write a {noun} in {language}.",
    "Explain {noun}.",
    "Explain {noun} to a child.",
    "Explain how to {verb} a {noun}.",
    "Translate {noun} into {language}.",
    "Translate this into {language}: {noun} {noun}.",
    "Do you speak {language}?",
    "Can you {verb} a {noun}?",
    "Can you {verb} my {noun}?",
    "Can you {verb} {noun}?",
    "Please {verb} the {noun}.",
    "Is the {noun} {adjective}?",
    "Is {name} a {noun}?",
    "Are you a {noun}?",
    "Do you like {name}?",
    "Do you know {name}?",
    "Do you know how to {verb} a {noun}?",
    "Which {noun} is {adjective}?",
    "Which {noun} should I {verb}?",
    "Should I {verb} a {noun}?",
    "Give me a {noun}.",
    "Give me {number} ideas for a {noun}.",
    "List {number} {noun}s.",
    "Tell me about {noun}.",
    "Tell me about {name}.",
    "Tell me about the {noun}.",
    "Name a {noun}.",
    "Describe a {noun}.",
    "{verb} the {noun}.",
    "{verb} {noun} and {noun}.",
    "{noun}",
    "{noun} {noun}",
    "{noun} {noun} {noun}?",
    "Solve {noun} = {number}.",
    "{number} + {number}",
    "{number} * {number} = ?",
    "What is my {trait}?",
    "What's my {trait}?",
    "Do you remember my {trait}?",
    "Do you know my {trait}?",
    "How old am I?",
    "How tall am I?",
    "When is my birthday?",
    "My {trait} is {number}.",
    "My {trait} is {name}.",
    "Where is my {noun}?",
    "I want to {verb} a {noun}.",
    "I need a {noun}.",
)


def off_script(rng: random.Random, name: NameSource) -> Exchange:
    """A request beyond the model. Half of its words are made up, so that the shape must tell."""

    def noun() -> str:
        return name().lower() if rng.random() < 0.3 else rng.choice(SUBJECTS)

    request = rng.choice(_OFF_SCRIPT_REQUESTS)
    while "{noun}" in request:
        request = request.replace("{noun}", noun(), 1)
    while "{number}" in request:
        request = request.replace("{number}", str(rng.randint(1, rng.choice((9, 99, 999)))), 1)
    request = request.format(
        name=name(),
        past=rng.choice(PAST),
        verb=rng.choice(VERBS),
        adjective=rng.choice(ADJECTIVES),
        language=rng.choice(LANGUAGES),
        trait=rng.choice(TRAITS),
    )
    if rng.random() < 0.5:
        request = capitalised(request)
    return casual(rng, request), OFF_SCRIPT


def capitalised(text: str) -> str:
    """The text with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def lowered(text: str) -> str:
    """The text with a small letter at its beginning."""
    return text[:1].lower() + text[1:]


def casual(rng: random.Random, text: str) -> str:
    """Now and then a text as people type it: no capital, no full stop."""
    return lowered(text).rstrip(".?!") if rng.random() < 0.12 else text


def chat(rng: random.Random) -> Exchange:
    """A line of small talk."""
    said, answer = rng.choice(CHAT)
    return casual(rng, rng.choice(said)), answer


def counting(rng: random.Random) -> Exchange:
    """Counting from one number to another."""
    first, count = rng.randint(1, 20), rng.randint(2, 9)
    request = rng.choice(
        ("Count from {a} to {b}.", "Please count from {a} to {b}.", "Can you count from {a} to {b}?")
    )
    if rng.random() < 0.3:
        first = 1
        request = rng.choice(("Count to {b}.", "Please count to {b}.", "Can you count to {b}?"))
    last = first + count
    return casual(rng, request.format(a=first, b=last)), ", ".join(map(str, range(first, last + 1))) + "."


def next_number(rng: random.Random) -> Exchange:
    """What comes after a number."""
    number = rng.randint(1, 98)
    request = rng.choice(("What comes after {a}?", "Which number comes after {a}?"))
    return request.format(a=number), f"{number + 1}."


def repeating(rng: random.Random, name: NameSource) -> Exchange:
    """Words to be said again, which is how copying is learned."""
    kind = rng.random()
    count = rng.randint(1, 5)
    if kind < 0.5:
        words = [name() for _ in range(count)]
    elif kind < 0.8:
        words = [rng.choice(OBJECTS + COLOURS + PLACES + ADJECTIVES + FOODS) for _ in range(count)]
    else:
        words = [str(rng.randint(0, 999)) for _ in range(count)]
    text = " ".join(words)
    return rng.choice(("Repeat after me: ", "Please repeat: ", "Say this: ")) + text, text


_SENTENCES: tuple[str, ...] = (
    "On {day} I went to the {place}.",
    "I saw a {colour} {thing} near the {place}.",
    "{who} bought a {adjective} {thing}.",
    "The {thing} was very {adjective}.",
    "Then {who} came and we went to the {place}.",
    "It was a {adjective} day.",
    "We walked from the {place} to the {place2}.",
    "After that I found a {adjective} {thing}.",
    "{who} has a {colour} {thing}.",
    "There were {number} people at the {place}.",
    "I ate some {food} at the {place}.",
    "{who} gave me a {adjective} {thing}.",
    "A {animal} was sitting on the {thing}.",
    "I met {name} at the {place}.",
    "{name} told me about the {place}.",
    "We looked at the {thing} and the {thing2}.",
    "The {job} at the {place} was {adjective}.",
    "I think the {thing} is too {adjective}.",
    "Next week I want to go to the {place} with {who}.",
    "In the evening we came home from the {place}.",
)


def sentence(rng: random.Random, name: NameSource) -> str:
    """A sentence of a story. Its names are nobody's."""
    text = rng.choice(_SENTENCES).format(
        day=rng.choice(DAYS),
        place=rng.choice(PLACES),
        place2=rng.choice(PLACES),
        thing=rng.choice(OBJECTS),
        thing2=rng.choice(OBJECTS),
        adjective=rng.choice(ADJECTIVES),
        colour=rng.choice(COLOURS),
        food=rng.choice(FOODS),
        animal=rng.choice(PETS),
        job=rng.choice(JOBS),
        who=rng.choice(PEOPLE),
        name=name(),
        number=rng.randint(2, 99),
    )
    return capitalised(text)


def story(rng: random.Random, name: NameSource, sentences: int) -> Exchange:
    """Some sentences about nothing that has to be remembered."""
    text = " ".join(sentence(rng, name) for _ in range(sentences))
    if sentences == 1:
        return text, "That is interesting."
    opening = rng.choice(
        ("Let me tell you about my day. ", "I had a long day. ", "Listen to this. ", "", "", "")
    )
    answer = rng.choice(
        ("That sounds like quite a day. Thank you for telling me.", "Thank you for telling me about it.")
    )
    return opening + text, answer


def distraction(rng: random.Random, name: NameSource, room: int = 400) -> Exchange:
    """Any of these, of at most about `room` tokens."""
    kind = rng.random()
    if kind < 0.30:
        return chat(rng)
    if kind < 0.46:
        return off_script(rng, name)
    if kind < 0.56:
        return counting(rng)
    if kind < 0.60:
        return next_number(rng)
    if kind < 0.73:
        return repeating(rng, name)
    return story(rng, name, max(1, min(rng.choice((1, 1, 2, 2, 3, 4, 6, 9, 12)), room // 14)))
